"""Videos and English texts of ShortVideo, the wrong ids among them, and the recipes over its files."""

import hashlib

import polars as pl
import pytest

from datasets_spec import registry
from datasets_spec.durations import check_durations, durations_fit
from datasets_spec.errors import MissingSourceError
from datasets_spec.prepare import prepare
from datasets_spec.shortvideo_texts import PROBED, add_texts
from datasets_spec.sources import shortvideo
from datasets_spec.spec import PrepareConfig

NOON = 1663286400
LOOSE = PrepareConfig(k_user=1, k_item=1)
TABLE_ONLY = PrepareConfig(k_user=1, k_item=1, media=())
SECONDS = {1: 2.0, 2: 4.0, 3: 6.0, 4: 8.0, 5: 10.0}


@pytest.fixture
def folder(tmp_path, row, write_table):
    """A local folder with a table of five videos of 2, 4, 6, 8 and 10 seconds; no file of them is there yet."""
    rows = [row(1, pid, NOON + pid, duration=seconds) for pid, seconds in SECONDS.items()]
    write_table(tmp_path / "mine" / "interaciton_filtered.csv", rows)
    for name in ("raw_file", "title_en", "asr_en"):
        (tmp_path / "mine" / name).mkdir()
    return tmp_path / "mine"


def put(folder, videos):
    for pid, body in videos.items():
        (folder / "raw_file" / f"{pid}.mp4").write_bytes(body)


def test_files_shifted_by_one_are_refused_and_the_shift_is_reported(tmp_path, folder, clip, caplog):
    put(
        folder, {1: clip(4.0), 2: clip(6.0), 3: clip(8.0), 4: clip(10.0), 5: clip(10.0)}
    )  # of pid + 1, but for the last
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(folder))
    assert [item_id for item_id, _ in prepared.media("video")] == ["5"]
    summary = (
        "durations of 5 videos compared with the table: 1 fit, 4 do not; 0 could not be compared; of those that do "
        "not, 4 of 4 fit the row of id +1, 0 of 3 fit the row of id -1, about 0.8 would fit a row at random"
    )
    assert summary in caplog.messages
    rows = prepared.quarantine.select("item_id", "reason", "detail").rows()
    assert rows[0] == (None, "duration_check", summary)
    assert rows[1] == (
        "1",
        "duration_mismatch",
        "the table says 2.0 s, the file lasts 4.0 s; id +1 has 4.0 s",
    )
    assert [row[:2] for row in rows[1:]] == [(str(pid), "duration_mismatch") for pid in range(1, 5)]
    assert prepared.manifest["bad_rows"] == {"duration_check": 1, "duration_mismatch": 4}


def test_files_that_fit_stay_and_unreadable_ones_are_left_to_the_decoder(tmp_path, folder, clip):
    put(folder, {1: clip(2.0), 2: b"no video", 3: clip(2.0), 5: clip(10.0)})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(folder))
    assert prepared.media("video") == [(pid, folder / "raw_file" / f"{pid}.mp4") for pid in ("1", "2", "5")]
    quarantine = prepared.quarantine.sort("item_id").select("item_id", "reason").rows()
    assert quarantine == [(None, "duration_check"), ("3", "duration_mismatch"), ("4", "missing")]


def test_the_check_counts_what_it_could_not_compare(tmp_path, clip):
    paths = {}
    for name, body in {"good": clip(2.0), "other": clip(4.0), "broken": b"x"}.items():
        paths[name] = tmp_path / f"{name}.mp4"
        paths[name].write_bytes(body)
    items = pl.DataFrame(
        {
            "item_id": ["1", "2", "3", "4", "hash"],
            "video": [str(paths[name]) for name in ("good", "broken", "good")] + [None, str(paths["other"])],
            "duration": [2.0, 2.0, None, 9.0, 2.0],
        }
    )
    check = check_durations(items)
    assert (check.checked, check.unknown, list(check.mismatches)) == (2, 2, ["hash"])
    assert check.shifted(1) == (0, 0)  # an id that is no number has no neighbours
    assert check.by_chance == 0.0


@pytest.mark.parametrize(
    ("actual", "expected", "fit"),
    [(3.0, 2.0, True), (3.1, 2.0, False), (104.9, 100.0, True), (105.1, 100.0, False), (8.0, 324.0, False)],
)
def test_durations_fit_within_a_second_or_five_percent(actual, expected, fit):
    assert durations_fit(actual, expected) is fit


def test_texts_are_read_from_the_folder_and_those_of_wrong_files_are_not_used(tmp_path, folder, clip):
    put(folder, {1: clip(2.0), 2: clip(8.0)})
    for pid, text in {1: "\ufeffCatch lobsters \n under the sea ", 2: "Another video", 3: " \n"}.items():
        (folder / "title_en" / f"{pid}.txt").write_text(text, encoding="utf-8")
    (folder / "asr_en" / "1.txt").write_bytes(b"I've tried \xff")
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(folder))
    assert prepared.items.select("item_id", "title_en", "asr_en").rows() == [
        ("1", "Catch lobsters under the sea", "I've tried \ufffd"),
        ("2", None, None),
        ("3", None, None),
        ("4", None, None),
        ("5", None, None),
    ]
    assert prepared.texts(("title_en",)) == [("1", "Catch lobsters under the sea")]
    told = "titles are Chinese; of 5 items 2 have title_en, 1 have asr_en, by the name of the file"
    assert any(note.startswith(told) for note in prepared.manifest["notes"])


def test_texts_are_read_without_videos_too(tmp_path, folder):
    (folder / "title_en" / "4.txt").write_text("Rural life")
    prepared = prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=str(folder))
    assert prepared.texts(("title_en",)) == [("4", "Rural life")]


def test_of_a_text_without_end_the_beginning_is_read(tmp_path):
    (tmp_path / "asr_en").mkdir()
    (tmp_path / "asr_en" / "1.txt").write_bytes(b"a" * 1_000_000)
    items = add_texts(pl.DataFrame({"item_id": ["1"]}), tmp_path)
    assert items["asr_en"].str.len_bytes().to_list() == [20_000]


def test_texts_are_fetched_with_the_videos_and_stay(tmp_path, make_site, folder, clip, login):
    files = {f"raw_file/{pid}.mp4": clip(seconds) for pid, seconds in SECONDS.items()}
    files |= {f"title_en/{pid}.txt": f"Title {pid}".encode() for pid in (1, 2, 4)} | {"asr_en/3.txt": b""}
    table = (folder / "interaciton_filtered.csv").read_bytes()
    site = make_site(files=files | {"interaciton_filtered.csv": table})
    first = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=site.url)
    assert dict(first.texts(("title_en",))) == {"1": "Title 1", "2": "Title 2", "4": "Title 4"}
    assert first.items["asr_en"].null_count() == 5
    own = f"from-{hashlib.sha256(site.url.encode()).hexdigest()[:8]}"
    assert first.media("video")[0][1] == tmp_path / "root" / "raw" / "shortvideo" / own / "raw_file" / "1.mp4"
    assert first.quarantine.is_empty()  # that a video has no transcript is no fault
    again = prepare("shortvideo", root=tmp_path / "root", config=LOOSE)
    assert again.version == first.version
    assert again.items.equals(first.items)


def test_a_site_without_texts_is_not_asked_for_each(tmp_path, make_site, row, write_table, clip, login, caplog):
    rows = [row(1, pid, NOON + pid) for pid in range(1, 61)]
    table = write_table(tmp_path / "table.csv", rows).read_bytes()
    files = {f"raw_file/{pid}.mp4": clip(2.0) for pid in range(1, 61)}
    site = make_site(files=files | {"interaciton_filtered.csv": table})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=site.url)
    assert len(prepared.media("video")) == 60
    assert sum(asked.path.startswith("title_en/") for asked in site.asked) == PROBED == 20
    assert any("title_en: none of 20 files exists" in message for message in caplog.messages)


def test_a_text_that_is_there_and_cannot_be_had_is_a_quarantine_row(tmp_path, make_site, folder, clip, login):
    files = {f"raw_file/{pid}.mp4": clip(seconds) for pid, seconds in SECONDS.items()}
    files |= {f"{kind}/{pid}.txt": b"words" for kind in ("title_en", "asr_en") for pid in SECONDS}
    files["interaciton_filtered.csv"] = (folder / "interaciton_filtered.csv").read_bytes()
    site = make_site(files=files, statuses={"asr_en/2.txt": [403]})
    prepared = prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=site.url)
    assert prepared.quarantine.select("file", "item_id", "reason").rows() == [("asr_en/2.txt", "2", "http")]


def test_hashed_ids_are_said_to_belong_to_no_file(tmp_path, row, write_table):
    rows = [row(1, pid, NOON + number) for number, pid in enumerate((84199269992, 59821271563, 7))]
    write_table(tmp_path / "mine" / "interaction.csv", rows)
    prepared = prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=str(tmp_path / "mine"))
    assert (
        "2 of 3 pids lie outside 1..153561, the names of the published files: they are hashes, to which no video and "
        "no English text belongs" in prepared.manifest["notes"]
    )


@pytest.mark.parametrize("name", shortvideo.TABLES)
def test_every_published_name_of_the_table_is_read(tmp_path, row, write_table, name):
    write_table(tmp_path / "mine" / name, [row(1, 1, NOON)])
    prepared = prepare("shortvideo", root=tmp_path / "root", config=TABLE_ONLY, source=str(tmp_path / "mine"))
    assert prepared.n_items == 1


def test_a_folder_without_a_table_is_one_clear_error(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(
        MissingSourceError, match=r"expected one of interaciton_filtered.csv, .*, interaction.csv, .* in"
    ):
        prepare("shortvideo", root=tmp_path / "root", config=LOOSE, source=str(tmp_path / "mine"))


@pytest.mark.parametrize(
    ("name", "users", "mean_length", "per_item"),
    [("shortvideo-small", 3_460, 69.61, 2.86), ("shortvideo-big", 7_584, 70.33, 4.34)],
)
def test_a_recipe_holds_the_printed_sizes_and_cannot_be_a_core_of_items(name, users, mean_length, per_item):
    _, spec = registry.load(name)
    (printed,) = spec.published
    assert spec.raw == "shortvideo"
    assert spec.config.sample_users == printed.users == users
    assert printed.interactions / printed.users == pytest.approx(mean_length, abs=0.005)  # the paper's own column
    assert printed.interactions / printed.items == pytest.approx(per_item, abs=0.005)
    assert (spec.config.k_user, spec.config.k_item, spec.config.split) == (4, 1, "leave_one_out")


def test_a_recipe_samples_users_and_reads_the_shared_files(tmp_path, row, write_table):
    rows = [row(user, 10 * user + n, NOON + n) for user in range(1, 9) for n in range(4)]
    write_table(tmp_path / "root" / "raw" / "shortvideo" / "interaction.csv", rows)
    (tmp_path / "root" / "raw" / "shortvideo" / "category_cn_en.csv").write_text(
        "category_id,category_name_cn,category_name_en\n"
    )
    config = registry.load("shortvideo-small")[1].config.model_copy(update={"media": (), "sample_users": 3})
    prepared = prepare("shortvideo-small", root=tmp_path / "root", config=config)
    assert (prepared.n_users, prepared.n_items) == (3, 12)
    assert prepared.manifest["published"][0]["users"] == 3_460
    assert not (tmp_path / "root" / "raw" / "shortvideo-small").exists()
