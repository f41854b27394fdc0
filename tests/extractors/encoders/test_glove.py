"""Word vectors: the file format with its traps, look-up, and what has no vector."""

import mmap
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from extractors import registry
from extractors.checkpoint import CheckpointChoiceError, CheckpointError
from extractors.encoders.glove import VectorFile, candidates, words
from extractors.extract import announce, extract_text, hash_texts, open_feature
from feature_store import FeatureStore

LINES = [
    "the 1 0 0 0",
    "cat 0 1 0 0",
    ". . . 9 9 9 9",  # a token that holds blanks, as in glove.840B.300d
    "Paris 0 0 1 0",
    "paris 5 5 5 5",
    "dog 0 0 0 1",
    "dog 7 7 7 7",  # repeated: the first counts
    "at name@domain.com 8 8 8 8",
    "at 2 2 2 2",
]


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "vectors.4d.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def build(path, **settings):
    return registry.build("glove", {"checkpoint": str(path), **settings}, toy_root=path.parent)


def test_mean_of_the_known_words_and_counts_of_the_unknown(table):
    encoded = build(table).encode(["the cat", "The zzz dog", "Paris", "PARIS"])
    np.testing.assert_array_equal(encoded.embedding[0], [0.5, 0.5, 0, 0])
    np.testing.assert_array_equal(encoded.embedding[1], [0.5, 0, 0, 0.5])
    np.testing.assert_array_equal(encoded.embedding[2], [0, 0, 1, 0])  # cased first
    np.testing.assert_array_equal(encoded.embedding[3], [5, 5, 5, 5])  # then lower case
    assert encoded.counts == {"tokens": 7, "oov_tokens": 1}
    assert not encoded.faults


def test_tokens_that_hold_blanks_do_not_shadow_words(table):
    encoder = build(table)
    assert encoder.spec.dim == 4
    np.testing.assert_array_equal(encoder.encode(["at"]).embedding[0], [2, 2, 2, 2])


def test_a_text_without_known_words_is_a_fault_and_never_a_zero_vector(table):
    encoded = build(table).encode(["zzz yyy", "", " \t ", "!!! ...", "cat"])
    assert [encoded.faults[row].reason for row in range(4)] == ["all_oov", "empty_text", "empty_text", "no_words"]
    assert "none of the 2 words" in encoded.faults[0].detail
    assert np.isnan(encoded.embedding[:4]).all()
    np.testing.assert_array_equal(encoded.embedding[4], [0, 1, 0, 0])


ADVICE = (
    "they are Chinese and the vectors are of English words: encode an English column by text=COLUMN, such as "
    "text=title_en or text=asr_en of ShortVideo"
)
OUTCOME = "they go to quarantine as all_oov"


def test_a_title_in_a_language_without_vectors_is_all_oov_and_says_what_to_do(table):
    faults = build(table).encode(["成都的夜市，很热闹", "成都 cat"]).faults
    assert list(faults) == [0]  # one English word is enough for a vector
    assert faults[0].reason == "all_oov"
    assert faults[0].detail == f"none of the 2 words has a vector, first '成都的夜市'; {ADVICE}"


def test_lost_texts_are_counted_in_one_warning(table, caplog):
    encoder = build(table)
    texts = ["成都的夜市", "the cat", "重庆", "zzz yyy", "!!!", ""]
    encoder.announce(texts)
    encoder.encode(texts)
    encoder.announce(texts[:3])  # a part of them, as a task does
    assert [record.getMessage() for record in caplog.records] == [
        "glove: no word of 3 of 6 texts has a vector; they go to quarantine as all_oov, the first is '成都的夜市'; "
        f"2 of them: {ADVICE}"
    ]


def test_an_extraction_of_chinese_titles_says_what_became_of_them(table, tmp_path, caplog):
    texts = {"1": "成都的夜市", "2": "重庆火锅", "3": "the cat"}
    store = FeatureStore.open(tmp_path / "store", create=True)
    settings = {"checkpoint": str(table)}
    feature = open_feature("glove", settings, contents=hash_texts(texts), store=store, toy_root=tmp_path)
    announce(texts, feature)
    report = extract_text(texts, feature)
    assert (report.encoded, report.failed) == (1, 2)
    quarantined = store.quarantined().select("item_id", "reason", "detail").rows()
    assert [row[:2] for row in quarantined] == [("1", "all_oov"), ("2", "all_oov")]
    assert all(detail.endswith(ADVICE) for *_, detail in quarantined)
    assert sum(f"no word of 2 of 3 texts has a vector; {OUTCOME}" in message for message in caplog.messages) == 1
    assert store.latest().matrix(["1", "2", "3"]).present.tolist() == [False, False, True]


def test_lost_texts_that_are_not_chinese_get_no_advice_about_chinese(table, caplog):
    encoder = build(table)
    encoder.announce(["the cat", "zzz yyy"])
    assert [record.getMessage() for record in caplog.records] == [
        "glove: no word of 1 of 2 texts has a vector; they go to quarantine as all_oov, the first is 'zzz yyy'"
    ]
    assert encoder.encode(["zzz"]).faults[0].detail == "none of the 1 words has a vector, first 'zzz'"


def test_texts_with_vectors_are_announced_in_silence(table, caplog):
    build(table).announce(["the cat", "dog zzz", ""])
    assert caplog.records == []


def test_the_file_is_read_once_for_what_was_announced(table, monkeypatch):
    encoder = build(table)
    passes = []
    read = encoder._table.read
    monkeypatch.setattr(encoder._table, "read", lambda wanted: passes.append(len(wanted)) or read(wanted))
    encoder.announce(["the cat", "dog zzz"])
    for text in ("the cat", "dog", "zzz the"):
        encoder.encode([text])
    assert passes == [4]
    encoder.encode(["Paris"])
    assert passes == [4, 2]  # Paris and paris
    assert set(encoder._vectors) == {"the", "cat", "dog", "zzz", "Paris", "paris"}


@pytest.fixture
def passes(monkeypatch):
    """The words of every pass over a text file."""
    found = []
    read = VectorFile.read

    def noted(file, wanted):
        found.append(sorted(wanted))
        time.sleep(0.05)  # long enough for others to come in between
        return read(file, wanted)

    monkeypatch.setattr(VectorFile, "read", noted)
    return found


def kept(folder, suffix):
    (path,) = (folder / "words").glob(f"*{suffix}")
    return path


def test_the_next_run_maps_what_was_read(table, passes):
    texts = ["the cat", "zzz dog", "yyy"]
    first = build(table).encode(texts)
    again = build(table)
    second = again.encode(texts)
    assert passes == [["cat", "dog", "the", "yyy", "zzz"]]
    np.testing.assert_array_equal(second.embedding, first.embedding)
    assert (second.faults, second.counts) == (first.faults, {"tokens": 5, "oov_tokens": 2})
    assert list(second.faults) == [2]
    rows = np.load(kept(table.parent, ".npy"), mmap_mode="r")
    np.testing.assert_array_equal(rows, [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 0, 1]])  # in the order of the file
    assert rows.dtype == np.float32
    held = again._vectors["cat"]
    while isinstance(held.base, np.ndarray):
        held = held.base
    assert isinstance(held.base, mmap.mmap)


def test_a_word_that_is_added_later_is_found(table, passes):
    build(table).encode(["the cat"])
    encoded = build(table).encode(["cat Paris qqq"])
    assert encoded.embedding.tolist() == [[0, 0.5, 0.5, 0]]
    assert encoded.counts == {"tokens": 3, "oov_tokens": 1}
    build(table).encode(["the cat", "Paris", "qqq dog"])
    assert passes == [["cat", "the"], ["Paris", "paris", "qqq"], ["dog"]]
    assert np.load(kept(table.parent, ".npy")).shape == (5, 4)  # of earlier contents nothing is left


def test_no_word_of_the_cache_is_in_the_file(table, passes):
    for _ in range(2):
        assert build(table).encode(["zzz"]).faults[0].reason == "all_oov"
    assert passes == [["zzz"]]


@pytest.mark.parametrize("suffix", [".npy", ".json"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"",
        lambda content: content[:-9],
        lambda content: (
            content[: len(content) // 2] + bytes([content[len(content) // 2] ^ 1]) + content[len(content) // 2 + 1 :]
        ),
        lambda content: b"[]",
        lambda content: content.replace(b"dog", b"dig"),
        lambda content: None,
    ],
    ids=["empty", "short", "one bit", "other", "word", "absent"],
)
def test_a_damaged_cache_is_written_anew(suffix, damage, table, passes):
    expected = build(table).encode(["the cat", "dog zzz"]).embedding
    path = kept(table.parent, suffix)
    content = path.read_bytes()
    changed = damage(content)
    if changed is None:
        path.unlink()
    else:
        path.write_bytes(changed)
    for _ in range(2):
        np.testing.assert_array_equal(build(table).encode(["the cat", "dog zzz"]).embedding, expected)
    assert len(passes) == (1 if changed == content else 2)
    assert kept(table.parent, suffix).read_bytes() == content


def test_a_file_with_other_bytes_has_a_cache_of_its_own(table, passes):
    build(table).encode(["cat"])
    table.write_text(table.read_text().replace("cat 0 1 0 0", "cat 0 3 0 0"))
    assert build(table).encode(["cat"]).embedding.tolist() == [[0, 3, 0, 0]]
    assert len(passes) == 2


def test_processes_that_want_the_same_words_read_the_file_once(table, passes):
    encoders = [build(table) for _ in range(4)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda encoder: encoder.encode(["the cat"]).embedding[0].tolist(), encoders))
    assert found == [[0.5, 0.5, 0, 0]] * 4
    assert passes == [["cat", "the"]]


def test_what_a_killed_process_left_goes(table):
    build(table).encode(["cat"])
    left = kept(table.parent, ".json").with_suffix(".4194305.tmp")
    left.write_bytes(b"half")
    build(table).encode(["dog"])
    assert not left.exists()


def test_without_a_place_for_it_there_is_no_cache(table, caplog):
    (table.parent / "words").write_text("a file where the folder should be")
    encoder = build(table)
    assert encoder.encode(["the cat", "zzz"]).embedding[0].tolist() == [0.5, 0.5, 0, 0]
    assert encoder.encode(["dog cat"]).embedding.tolist() == [[0, 0.5, 0, 0.5]]
    assert "are held in memory" in caplog.text


def test_a_zip_gives_what_its_text_gives(table, tmp_path):
    archive = tmp_path / "vectors.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
        target.write(table, "vectors.4d.txt")
    assert build(archive).spec.preprocessing["member"] == "vectors.4d.txt"
    np.testing.assert_array_equal(
        build(archive).encode(["the cat"]).embedding, build(table).encode(["the cat"]).embedding
    )


def test_a_zip_of_several_files_needs_a_choice(table, tmp_path):
    archive = tmp_path / "both.zip"
    with zipfile.ZipFile(archive, "w") as target:
        target.write(table, "small.4d.txt")
        target.writestr("large.2d.txt", "cat 1 2\ndog 3 4\n")
    with pytest.raises(CheckpointChoiceError, match=r"holds small\.4d\.txt, large\.2d\.txt; pass member=NAME"):
        build(archive)
    assert build(archive, member="large.2d.txt").encode(["dog"]).embedding.tolist() == [[3, 4]]


@pytest.mark.parametrize("line", ["cat 0 1 x 0", "cat 0 1 nan 0"])
def test_a_damaged_line_is_named(line, tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text(f"the 1 0 0 0\n{line}\n")
    with pytest.raises(CheckpointError, match=r"line 2: expected a token and 4 finite numbers"):
        build(path).encode(["cat"])


def test_a_file_of_another_format_is_refused(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("400000 300\nthe 1 2 3\n")
    with pytest.raises(CheckpointError, match="without a header"):
        build(path)


def test_a_hub_id_without_a_commit_is_refused(tmp_path):
    with pytest.raises(CheckpointChoiceError, match=r"stanfordnlp/glove.* must be pinned: pass revision=COMMIT"):
        registry.describe("glove", toy_root=tmp_path)


def test_words_and_their_spellings():
    assert words("Don't stop: Xi\u2019an's 2nd_night-market!") == ["Don't", "stop", "Xi’an's", "2nd", "night", "market"]
    assert candidates("Don't") == ("Don't", "don't", "Don", "don")
    assert candidates("cat") == ("cat",)
