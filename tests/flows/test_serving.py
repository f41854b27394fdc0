"""A trained run in use: index, lists for all users, slices; each compared with what follows from files and weights."""

import math

import faiss
import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file
from small_lab import DATASET, IDS, command, histories, make_lab, train

from flows import cli
from flows.jobs.finished_run import load_run
from flows.jobs.prepare import open_prepared
from flows.settings import Settings
from models.evaluation.probing import linear_probe
from models.sequences.dataset import SequenceData


@pytest.fixture
def run_id(lab, capsys):
    return train(lab, capsys, "sasrec", "training.epochs=5")["run_id"]


def item_table(lab, run_id):
    """The trained item vectors by item id, straight from the file of weights."""
    weights = load_file(lab / "runs" / run_id / "checkpoints" / "best" / "weights.safetensors")
    (table,) = [value for value in weights.values() if value.shape == (13, 8)]
    numbers = open_prepared(Settings(root=lab), DATASET).items
    return {item_id: table[number] for number, item_id in numbers.select("item", "item_id").iter_rows()}


def brute_force(lab, run_id, k):
    """The best items of every user that are not in the history, by numpy."""
    run = load_run(Settings(root=lab), run_id)
    users = dict(run.prepared.users.select("user_id", "user").iter_rows())
    vectors = item_table(lab, run_id)
    found = {}
    for user_id, seen in histories().items():
        batch, _ = run.inputs.data.serving_batch([users[user_id]], max_length=5)
        with run.at_work():
            state = run.model.query(batch, generator=None).detach().numpy()[0]
        scores = {item: float(vector @ state) for item, vector in vectors.items() if item not in seen}
        found[user_id] = sorted(scores, key=scores.get, reverse=True)[:k]
    return found


def test_the_index_holds_the_trained_vectors_in_the_order_of_its_item_file(lab, run_id, capsys, tmp_path):
    code, payload, err = command(lab, capsys, "index", run_id, "--out", tmp_path / "served")
    assert code == 0, err
    assert (payload["rows"], payload["width"]) == (12, 8)
    index = faiss.read_index(payload["index"])
    rows = pl.read_parquet(payload["items"])
    assert rows["row"].to_list() == list(range(12))
    vectors = item_table(lab, run_id)
    expected = np.stack([vectors[item] for item in rows["item_id"]])
    np.testing.assert_array_equal(index.reconstruct_n(0, 12), expected)
    _, nearest = index.search(expected[:1], 12)
    assert nearest[0].tolist() == np.argsort(-(expected @ expected[0]), kind="stable").tolist()


def test_a_model_without_item_vectors_has_no_index(lab, capsys, tmp_path):
    run_id = train(lab, capsys, "popularity")["run_id"]
    code, payload, _ = command(lab, capsys, "index", run_id, "--out", tmp_path / "served")
    assert code == 2
    assert "has no item vectors whose inner product with a state is the score" in payload["error"]
    assert not (tmp_path / "served").exists()


def test_the_lists_of_all_users_are_those_of_a_brute_force_search(lab, run_id, capsys, tmp_path):
    out = tmp_path / "new" / "lists.parquet"
    code, payload, err = command(lab, capsys, "recommend", run_id, "--all-users", "--out", out, "-k", "4")
    assert code == 0, err
    assert (payload["users"], payload["k"], payload["file"]) == (25, 4, str(out))
    lists = dict(pl.read_parquet(out).select("user_id", "item_ids").iter_rows())
    assert lists == brute_force(lab, run_id, 4)
    code, one, _ = command(lab, capsys, "recommend", run_id, "--user", "u07", "-k", "4")
    assert code == 0
    assert [row["item_id"] for row in one["items"]] == lists["u07"]


def test_with_drop_lists_and_index_hold_the_kept_items(lab, capsys, tmp_path):
    run_id = train(lab, capsys, "tedrec", "missing=drop")["run_id"]
    out = tmp_path / "lists.parquet"
    assert cli.main(["--root", str(lab), "recommend", run_id, "--all-users", "--out", str(out), "-k", "2"]) == 0
    assert "for each of 24 users; 1 of 25 users left out" in capsys.readouterr().out
    lists = dict(pl.read_parquet(out).iter_rows())
    assert lists.keys() == histories().keys() - {"u24"}
    assert set().union(*lists.values()) <= set(IDS) - {"i02", "i07", "i10"}
    assert all(not set(items) & set(histories()[user]) for user, items in lists.items())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--all-users"], "expected --out FILE.parquet"),
        (["--user", "u00", "--out", "x.parquet"], "--out goes with --all-users"),
        (["--user", "nobody"], "has no user 'nobody'"),
        (["--user", "u00", "-k", "12"], "k: expected 1 to 7"),
    ],
)
def test_wrong_calls(lab, run_id, capsys, words, message):
    code, payload, _ = command(lab, capsys, "recommend", run_id, *words)
    assert code == 2
    assert message in payload["error"]


@pytest.mark.parametrize("words", [[], ["--user", "u00", "--all-users"]])
def test_a_user_or_all_of_them(lab, run_id, capsys, words):
    with pytest.raises(SystemExit) as refused:
        cli.main(["--root", str(lab), "recommend", run_id, *words])
    assert refused.value.code == 2


def test_slices_are_what_the_saved_ranks_give(lab, run_id, capsys):
    code, payload, err = command(lab, capsys, "slices", run_id, "-k", "3")
    assert code == 0, err
    prepared = open_prepared(Settings(root=lab), DATASET)
    trained = prepared.interactions.filter(split="train")["item"].value_counts()
    counts = dict(trained.iter_rows())
    before = {user: length - 1 for user, length in prepared.users.select("user", "interactions").iter_rows()}
    ranks = pl.read_parquet(lab / "runs" / run_id / "ranks.parquet").filter(split="test")
    rows = list(ranks.select("user", "target", "rank", "rank_masked").iter_rows())

    def expected(low, high, value):
        return [(rank, masked) for user, item, rank, masked in rows if low <= value(user, item) < (high or math.inf)]

    values = {
        "history length": lambda user, item: before[user],
        "training interactions of the target": lambda user, item: counts.get(item, 0),
    }
    for name, value in values.items():
        parts = payload["slices"][name]
        assert sum(part["n_users"] for part in parts) == len(rows) == 25
        for part in parts:
            chosen = expected(part["low"], part["high"], value)
            assert part["n_users"] == len(chosen)
            for place, kind in enumerate(("unmasked", "masked")):
                hits = [ranks[place] < 3 for ranks in chosen]
                assert part[kind].get("hr@3") == (pytest.approx(np.mean(hits)) if hits else None)
    assert [part["slice"] for part in payload["slices"]["history length"]] == ["1-4", "5-9", "10-19", "20-49", "50+"]


def test_figures_of_the_lists_of_a_model_that_gives_the_most_popular(lab, capsys):
    run_id = train(lab, capsys, "popularity")["run_id"]
    code, payload, err = command(lab, capsys, "slices", run_id, "-k", "2")
    assert code == 0, err
    prepared = open_prepared(Settings(root=lab), DATASET)
    numbers = dict(prepared.items.select("item_id", "item").iter_rows())
    counted = dict(prepared.interactions.filter(split="train")["item_id"].value_counts().iter_rows())
    category = {item: None if item == "i11" else int(item[1:]) % 3 for item in IDS}
    lists = []
    for items in histories().values():
        candidates = sorted(set(IDS) - set(items[:-1]), key=lambda item: (-counted.get(item, 0), numbers[item]))
        lists.append(candidates[:2])
    given = [item for items in lists for item in items]
    figures = payload["lists"]
    assert figures["coverage@2"] == pytest.approx(len(set(given)) / 12)
    assert figures["popularity@2"] == pytest.approx(np.mean([counted.get(item, 0) for item in given]))
    different = [len({category[item] for item in items} - {None}) for items in lists]
    assert figures["categories@2"] == pytest.approx(np.mean(different))
    assert figures.keys() == {
        f"{name}@2" for name in ("coverage", "popularity", "log_popularity", "popularity_rank", "categories")
    }


def test_the_probe_reads_the_trained_vectors_and_the_items_categories(lab, run_id, capsys):
    """Of the twelve items the last has no category and the others have one of three, by their number."""
    code, payload, err = command(lab, capsys, "probe", run_id, "--folds", "3")
    assert code == 0, err
    vectors = item_table(lab, run_id)
    order = open_prepared(Settings(root=lab), DATASET).items.sort("item")["item_id"].to_list()
    categories = [0, *(0 if item == "i11" else int(item[1:]) % 3 + 1 for item in order)]
    expected = linear_probe(np.stack([np.zeros(8), *(vectors[item] for item in order)]), categories, folds=3)
    assert payload["accuracy"] == expected.accuracy
    assert (payload["n_items"], payload["n_categories"], payload["left_out"]) == (11, 3, 1)
    assert payload["majority"] == pytest.approx(4 / 11)


def test_tails_of_users_who_are_held_out_whole(tmp_path, capsys):
    """By numpy from the saved vectors: of 5, 6 or 7 rows 4, 4 or 5 are read, the rest is to be found."""
    lab = tmp_path / "root"
    make_lab(lab, split="user_811")
    run_id = train(lab, capsys, "sasrec")["run_id"]
    code, payload, err = command(lab, capsys, "tails", run_id, "-k", "5", "3")
    assert code == 0, err
    run = load_run(Settings(root=lab), run_id)
    rows = run.prepared.interactions.filter(pl.col("split") == "test").sort("user", "position")
    vectors = run.model.item_vectors().detach().numpy()
    recalls = []
    for (user,), own in rows.group_by("user", maintain_order=True):
        items = own["item"].to_list()
        cut = int(0.8 * len(items))
        one = SequenceData.from_arrays([user] * cut, items[:cut], range(cut), ["train"] * cut, n_items=12)
        batch, _ = one.serving_batch([user], max_length=5)
        scores = vectors[1:] @ run.model.query(batch, generator=None).detach().numpy()[0]
        best = set((np.argsort(-scores, kind="stable")[:3] + 1).tolist())
        recalls.append(len(best & set(items[cut:])) / len(set(items[cut:])))
    assert len(recalls) >= 2
    assert payload["unmasked"]["recall@3"] == pytest.approx(np.mean(recalls))
    assert list(payload["masked"]) == [f"{name}@{k}" for k in (3, 5) for name in ("recall", "hr", "ndcg")]

    code, payload, err = command(lab, capsys, "tails", run_id, "-k", "3", "--every-position")
    assert code == 0, err
    hits = []
    for (user,), own in rows.group_by("user", maintain_order=True):
        items = own["item"].to_list()
        for cut in range(1, len(items)):
            one = SequenceData.from_arrays([user] * cut, items[:cut], range(cut), ["train"] * cut, n_items=12)
            batch, _ = one.serving_batch([user], max_length=5)
            scores = vectors[1:] @ run.model.query(batch, generator=None).detach().numpy()[0]
            hits.append(items[cut] in (np.argsort(-scores, kind="stable")[:3] + 1))
    assert payload["unmasked"]["hr@3"] == pytest.approx(np.mean(hits))
    assert payload["masked"]["hr@3"] >= payload["unmasked"]["hr@3"]


def test_cut_offs_begin_at_one(lab, run_id, capsys):
    for words in ([], ["--every-position"]):
        code, payload, _ = command(lab, capsys, "tails", run_id, "-k", "0", *words)
        assert code == 2
        assert "expected cut-offs of at least 1, got [0]" in payload["error"]


def test_tails_need_users_who_are_held_out_whole(lab, run_id, capsys):
    for words in ([], ["--every-position"]):
        code, payload, _ = command(lab, capsys, "tails", run_id, "-k", "5", *words)
        assert code == 2
        assert "25 users have rows in split 'test' and rows in another" in payload["error"]
        assert "prepare the dataset with split=user_811" in payload["error"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "5"], "expected two or more with at least 5 items each"),
        (["--folds", "1"], "folds: expected 2 or more"),
    ],
)
def test_probes_that_cannot_be(lab, run_id, capsys, words, message):
    code, payload, _ = command(lab, capsys, "probe", run_id, *words)
    assert code == 2
    assert message in payload["error"]


def test_slices_for_people(lab, run_id, capsys):
    assert cli.main(["--root", str(lab), "slices", run_id, "-k", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{run_id}, test split"
    metrics = "hr@5 ndcg@5 mrr@5"
    heading = f"history length users {metrics} {' masked '.join(metrics.split())} masked"
    assert " ".join(lines[2].split()) == heading
    assert "50+" in lines[7]
    assert lines[7].count("–") == 6
    assert any(line.startswith("coverage@5  ") for line in lines)
