"""The report, made from small data that the real classes wrote; its figures are compared with their sources."""

import hashlib
import json
import logging
import math
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from types import SimpleNamespace

import av
import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy import stats as scipy_stats

from datasets_spec import registry
from datasets_spec.prepare import prepare
from datasets_spec.schema import RAW_INTERACTIONS, BadRow, RawTables
from datasets_spec.spec import DatasetSpec, Licence, PrepareConfig
from feature_store import FeatureShard, FeatureStore, QuarantineRow
from flows.errors import CallError
from flows.reporting.build import build_report
from flows.settings import Settings
from models.errors import RecordError
from models.evaluation.metrics import metrics_from_ranks
from models.evaluation.record import EvaluationProtocol, RunRecord, SplitMetrics, StoreVersion

HOSTILE = "<script>alert(1)</script>"
SEEDS = (0, 1, 2)
USERS, ITEMS = 40, 12
START = datetime(2024, 1, 1, tzinfo=UTC)


class Page(HTMLParser):
    """Tables by the beginning of their caption, and every attribute that could load something."""

    def __init__(self, html):
        super().__init__()
        self.tables, self.tags, self.addresses, self.text = {}, [], [], []
        self._place, self._caption, self._rows = None, "", []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append(tag)
        self.addresses += [values[name] for name in ("src", "href", "srcset", "data", "action") if name in values]
        if tag == "div" and values.get("class") == "table":
            self._caption, self._rows, self._place = "", [], "caption"
        elif tag == "tr":
            self._rows.append([])
        elif tag in ("td", "th"):
            self._rows[-1].append("")
            self._place = "cell"

    def handle_endtag(self, tag):
        if tag in ("p", "td", "th"):
            self._place = None
        elif tag == "table":
            self.tables[self._caption.strip()] = self._rows

    def handle_data(self, data):
        self.text.append(data)
        if self._place == "caption":
            self._caption += data
        elif self._place == "cell":
            self._rows[-1][-1] += data

    def table(self, start):
        """Rows as dicts by column name; captions begin with ``start``."""
        header, *rows = next(rows for caption, rows in self.tables.items() if caption.startswith(start))
        return [dict(zip(header, row, strict=True)) for row in rows]


class FakeSource:
    """Forty users of whom two are too rare, twelve items of which two are."""

    NAMES = ("synthetic",)

    def __init__(self, media):
        self.media = media

    def acquire(self, spec, config, raw_dir, *, source, progress):
        raw_dir.mkdir(parents=True)
        (raw_dir / "pairs.csv").write_text("made up\n")

    def parse(self, spec, config, raw_dir):
        rng = np.random.default_rng(7)
        rows = [(f"u{u:02d}", f"i{i:02d}") for u in range(USERS - 2) for i in rng.permutation(ITEMS - 2)[:6]]
        rows += [("u38", "i10"), ("u38", "i11"), ("u38", "i00"), ("u39", "i01")]
        timed = [(user, item, START + timedelta(hours=n), n) for n, (user, item) in enumerate(rows)]
        frame = pl.DataFrame(timed, schema=RAW_INTERACTIONS, orient="row")
        ids = [f"i{i:02d}" for i in range(ITEMS)]
        titles = [HOSTILE, *(f"Clip number {i} & more" for i in range(1, ITEMS))]
        media = ([self.media.get(item + suffix) for item in ids] for suffix in (".mp4", ".jpg"))
        schema = dict.fromkeys(("item_id", "title", "video", "image"), pl.String)
        items = pl.DataFrame([ids, titles, *media], schema=schema)
        bad = [BadRow("pairs.csv", 3, None, "malformed_row", HOSTILE), BadRow("pairs.csv", 9, "i03", "no_time", "?")]
        return RawTables(frame, items, bad, files=(raw_dir / "pairs.csv",), notes=("The metadata file is missing.",))

    def acquire_media(self, spec, config, raw_dir, items, *, source, progress):
        return items, []


def write_video(path, shade):
    """Four seconds at 5 frames a second; every frame has another shade."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=5)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for n in range(20):
            pixels = np.full((64, 96, 3), (shade, 10 * n, 255 - 10 * n), dtype=np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def make_dataset(root, media_dir):
    media_dir.mkdir()
    for n in range(3):
        write_video(media_dir / f"i{n:02d}.mp4", 60 * n)
    (media_dir / "i03.mp4").write_bytes(b"no video at all")
    Image.fromarray(np.full((30, 40, 3), 90, dtype=np.uint8)).save(media_dir / "i01.jpg")
    media = {path.name: str(path) for path in media_dir.iterdir()}
    licence = Licence("none stated", "made up", "For tests.")
    spec = DatasetSpec("synthetic", "Made-up pairs", licence, "none", (), ("video", "image"), PrepareConfig())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "load", lambda name: (FakeSource(media), spec))
        return prepare("synthetic", root=root, config=PrepareConfig(k_user=3, k_item=3))


def make_store(root, feature, *, toy):
    store = FeatureStore.open(root / "stores" / "synthetic" / feature, create=True)
    content = {f"i{n:02d}": hashlib.sha256(bytes([n])).digest() for n in range(ITEMS - 2)}
    failed = {f"x{n:02d}": hashlib.sha256(bytes([9, n])).digest() for n in range(60)} if toy else {}
    spec = {
        "encoder": feature,
        "checkpoint": {"weights_sha256": "ab" * 32, "settings_sha256": "cd" * 32, "toy": toy, "seed": 0},
        "sampling": {"frames": 5, "fps": 2.0, "decoder": "sequential"} if toy else {},
        "pooling": "mean of the patch tokens",
        "dtype": "float16",
        "recorded": {"checkpoint": {"source": "lab/" + feature, "revision": "e" * 40, "licence": "Apache-2.0"}},
    }
    plan = store.plan(spec, content | failed)
    values = np.random.default_rng(1).normal(size=(len(content), 4)).astype(np.float16)
    values[4] = 0
    store.write_shard(FeatureShard(list(content), list(content.values()), values), plan)
    reasons = ["corrupt" if n < 45 else "no_video" for n in range(60)]
    rows = zip(failed.items(), reasons, strict=False)
    store.quarantine([QuarantineRow(item, "decode", reason, HOSTILE, key) for (item, key), reason in rows])
    return store.commit(plan, recorded={"dataset": {"name": "synthetic", "version": "f" * 64}})


def make_run(root, prepared, *, model, seed, ranks, store=None):
    """``ranks``: int ``[users, 2]``, unmasked and masked; the validation metrics are those of the test split."""
    metrics = SplitMetrics(unmasked=metrics_from_ranks(ranks[:, 0]), masked=metrics_from_ranks(ranks[:, 1]))
    run_dir = root / "runs" / f"{model}-synthetic-s{seed}"
    record = RunRecord(
        run_id=run_dir.name,
        model=model,
        dataset=prepared.name,
        dataset_version=prepared.version,
        stores=(StoreVersion(name=store.name, version=store.version),) if store else (),
        seed=seed,
        config={"model": model, "dataset": "synthetic", "seed": seed, "training": {"epochs": 3}},
        git_sha="a1b2c3d4" * 5,
        lock_hash="9" * 64,
        protocol=EvaluationProtocol(n_candidates=1234, n_users={"test": len(ranks)}),
        metrics={"valid": metrics, "test": metrics},
        selected_epoch=2,
        timings={"fit": 12.5},
        extra={"machine": "a test bench"},
    )
    record.write(run_dir)
    (run_dir / "config.toml").write_text(f'model = "{model}"\nseed = {seed}\n')
    epochs = [{"epoch": n, "loss": 3.0 - n, "valid": {"hr@10": 0.1 * n, "ndcg@10": 0.05}} for n in (1, 2, 3)]
    untrained = [{"epoch": 0, "valid": {"hr@10": 0.1, "ndcg@10": 0.05}}]
    rows = untrained if model == "popularity" else epochs
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"user": range(1, len(ranks) + 1), "target": 1, "rank": ranks[:, 0], "rank_masked": ranks[:, 1]}
    pl.DataFrame({**columns, "tie_count": 0, "split": "test"}).write_parquet(run_dir / "ranks.parquet")


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """A root with one dataset, two stores and seven runs; the ranks by model and seed; the page."""
    root = tmp_path_factory.mktemp("lab") / "data"
    prepared = make_dataset(root, root.parent / "media")
    toy = make_store(root, "videomae", toy=True)
    make_store(root, "bert", toy=False)
    rng = np.random.default_rng(5)
    ranks = {}
    for model, scale in (("popularity", 60.0), ("sasrec", 30.0), ("mealrec", 20.0)):
        for seed in SEEDS if model != "popularity" else (0,):
            drawn = rng.exponential(scale, size=50).astype(np.int64)
            ranks[model, seed] = np.stack([drawn, drawn // 2], axis=1)
            store = toy if model == "mealrec" else None
            make_run(root, prepared, model=model, seed=seed, ranks=ranks[model, seed], store=store)
    (root / "runs" / "half-done").mkdir()
    summary = build_report(Settings(root=root), None, root.parent / "out" / "report.html")
    html = summary.path.read_text(encoding="utf-8")
    parts = {"root": root, "prepared": prepared, "toy": toy, "ranks": ranks, "summary": summary}
    return SimpleNamespace(**parts, html=html, page=Page(html))


def ndcg(ranks, k):
    return sum(1 / math.log2(r + 2) for r in ranks if r < k) / len(ranks)


def test_metric_table_follows_from_the_ranks(lab):
    for history, column in (("unmasked", 0), ("masked", 1)):
        rows = {row["model"]: row for row in lab.page.table(f"Test split. History {history}")}
        assert set(rows) == {"popularity", "sasrec", "mealrec toy features"}
        popular = lab.ranks["popularity", 0][:, column]
        assert rows["popularity"]["HR@10"] == f"{np.mean(popular < 10):.4f}"
        assert rows["popularity"]["NDCG@10 ÷ popularity"] == "1.00×"
        per_seed = [ndcg(lab.ranks["sasrec", seed][:, column], 20) for seed in SEEDS]
        assert rows["sasrec"]["NDCG@20"] == f"{np.mean(per_seed):.4f} ± {np.std(per_seed, ddof=1):.4f}"
        reciprocal = [np.mean([1 / (r + 1) if r < 20 else 0 for r in lab.ranks["sasrec", s][:, column]]) for s in SEEDS]
        assert rows["sasrec"]["MRR@20"].startswith(f"{np.mean(reciprocal):.4f} ±")
        ratio = np.mean([ndcg(lab.ranks["mealrec", s][:, column], 10) for s in SEEDS]) / ndcg(popular, 10)
        mealrec = rows["mealrec toy features"]
        assert mealrec["NDCG@10 ÷ popularity"] == f"{ratio:.2f}×"
        assert (mealrec["seeds"], mealrec["users"], mealrec["candidates"]) == ("0, 1, 2", "50", "1,234")


def test_comparison_is_scipys_paired_test(lab):
    rows = lab.page.table("Paired comparisons with sasrec")
    row = next(row for row in rows if row["metric"] == "NDCG@10, masked")
    ours, theirs = ([ndcg(lab.ranks[m, s][:, 1], 10) for s in SEEDS] for m in ("mealrec", "sasrec"))
    expected = scipy_stats.ttest_rel(ours, theirs)
    interval = expected.confidence_interval()
    assert row["pair"] == "mealrec − sasrec"
    assert row["mean difference"] == f"{np.mean(ours) - np.mean(theirs):+.4f}"
    assert row["95 % interval"] == f"[{interval.low:+.4f}, {interval.high:+.4f}]"
    assert (row["t (df)"], row["p"]) == (f"{expected.statistic:.2f} (2)", f"{expected.pvalue:.4f}")


def test_dataset_figures_are_those_of_the_tables(lab):
    statistics = lab.page.table("Statistics after filtering")[0]
    rows = lab.prepared.interactions
    assert statistics["users"] == "38"
    assert statistics["items"] == "10"
    assert statistics["interactions"] == f"{38 * 6}" == str(rows.height)
    assert statistics["items with video"] == "4"
    rounds = lab.page.table("k-core, round by round")
    # u39 leaves with its row and i10, i11 with theirs; then u38 has one row left.
    removed = [(r["users removed"], r["items removed"], r["rows removed"]) for r in rounds[1:]]
    assert removed == [("1", "2", "3"), ("1", "0", "1")]
    parts = {row["part"]: row["rows"] for row in lab.page.table("Rows, users and items")}
    assert parts == {"training": str(38 * 4), "validation": "38", "test": "38"}
    assert lab.prepared.manifest["split"]["line"] in lab.html
    assert [row["reason"] for row in lab.page.table("Raw rows, items and media")] == ["malformed_row", "no_time"]
    assert "The metadata file is missing." in lab.html


def test_frames_carry_times_of_the_stores_sampling(lab):
    # 4 s at 5 frames a second, n=5 at 2 frames a second around 2.0 s: 1.0, 1.5, 2.0, 2.5, 3.0, each on or after a frame
    assert lab.html.count('alt="frame of item i00 at ') == 5
    for label in ("1.00 s", "1.40 s", "2.00 s", "2.40 s", "3.00 s"):
        assert f'alt="frame of item i00 at {label}"' in lab.html
    assert lab.html.count("n_distinct = 5") == 3
    failed = lab.page.table("Files that were opened for this sheet")
    assert [row["item id"] for row in failed] == ["i03"]
    assert 'alt="cover of item i01"' in lab.html


def test_store_facts_quality_and_quarantine(lab):
    quality = lab.page.table("Quality of the column embedding")[0]
    assert quality["zero vectors"] == "1"
    reasons = {row["reason"]: row["rows"] for row in lab.page.table("Quarantine of synthetic/videomae by reason")}
    assert reasons == {"corrupt": "45", "no_video": "15"}
    assert len(lab.page.table("Items of synthetic/videomae in quarantine")) == 50
    assert "10 further rows not shown." in lab.html
    text = " ".join("".join(lab.page.text).split())
    assert "10 of 70 items (14.3 %)" in text
    assert "Made with seeded random weights: synthetic/videomae." in text
    assert text.count("Seeded toy checkpoint") == 1  # the other store is no toy
    assert lab.toy.spec_hash in lab.html
    assert "lab/bert" in text


def test_every_run_can_be_repeated(lab):
    text = "".join(lab.page.text)
    for model, seed in lab.ranks:
        run_dir = lab.root / "runs" / f"{model}-synthetic-s{seed}"
        assert f"reelstore --root {lab.root} train {run_dir / 'config.toml'}" in text
        assert f'model = "{model}"\nseed = {seed}\n' in text
    assert "a test bench" in text
    assert "half-done: not finished" in text
    assert lab.html.count("data:image/svg+xml") == 3 + 2 + 2  # dataset, models, curves of sasrec and mealrec


def test_page_loads_nothing_and_escapes_everything(lab):
    assert lab.summary.bytes == lab.summary.path.stat().st_size < 8_000_000
    assert {"script", "link", "iframe", "object", "embed"}.isdisjoint(lab.page.tags)
    assert [a for a in lab.page.addresses if not a.startswith(("data:image/", "#"))] == []
    style = lab.html.partition("<style>")[2].partition("</style>")[0]
    assert [word for word in ("url(", "@import") if word in style] == []
    assert "<script" not in lab.html
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in lab.html


def test_summary_has_the_rows_of_the_page(lab):
    assert (lab.summary.n_runs, lab.summary.datasets) == (7, ("synthetic",))
    masked = [row["model"] for row in lab.summary.metric_rows if row["history"] == "masked"]
    assert masked == [row["model"].partition(" ")[0] for row in lab.page.table("Test split. History masked")]


def test_chosen_runs_only(lab, tmp_path):
    summary = build_report(Settings(root=lab.root), ["sasrec-synthetic-s1"], tmp_path / "one.html")
    page = Page(summary.path.read_text(encoding="utf-8"))
    row = page.table("Test split. History unmasked")[0]
    assert (row["seeds"], row["NDCG@10 ÷ popularity"]) == ("1", "–")
    assert row["HR@10"] == f"{np.mean(lab.ranks['sasrec', 1][:, 0] < 10):.4f}"
    with pytest.raises(CallError, match="did you mean 'popularity-synthetic-s0'"):
        build_report(Settings(root=lab.root), ["popularity-synthetics0"], tmp_path / "none.html")
    with pytest.raises(RecordError, match="did not finish"):
        build_report(Settings(root=lab.root), ["half-done"], tmp_path / "none.html")


def test_metrics_that_do_not_follow_from_the_ranks_are_named(lab, tmp_path):
    run_dir = tmp_path / "runs" / "sasrec-synthetic-s0"
    run_dir.mkdir(parents=True)
    for path in (lab.root / "runs" / run_dir.name).iterdir():
        (run_dir / path.name).write_bytes(path.read_bytes())
    record = RunRecord.read(run_dir)
    record.metrics["test"].masked["hr@5"] += 0.01
    record.write(run_dir)
    html = build_report(Settings(root=tmp_path), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "The recorded test metrics (masked) do not follow from ranks.parquet: hr@5." in html
    assert "no prepared dataset at" in html  # the dataset of the run is not on this root


def test_an_empty_root_is_a_page_with_a_sentence(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        summary = build_report(Settings(root=tmp_path), None, tmp_path / "empty.html")
    html = summary.path.read_text(encoding="utf-8")
    assert (summary.n_runs, summary.datasets, summary.metric_rows) == (0, (), ())
    assert "There is nothing below" in html
    assert "There are no finished runs." in html
    assert caplog.records == []


def test_a_damaged_store_is_a_sentence(tmp_path):
    snapshot = make_store(tmp_path, "bert", toy=False)
    manifest = tmp_path / "stores" / "synthetic" / "bert" / "manifests" / f"{snapshot.version:08d}.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"rows": 10', b'"rows": 11'))
    html = build_report(Settings(root=tmp_path), None, tmp_path / "r.html").path.read_text(encoding="utf-8")
    assert "do not match the digest" in html
