"""What is read from headers and tables before decoding: AV1 units, H.264 frame numbers, MP4 sample tables."""

import struct
from itertools import pairwise

import av
import numpy as np
import pytest

from extractors.decoders import sample_table, scan
from extractors.decoders.av1 import Av1Reader
from extractors.decoders.bits import Bits
from extractors.decoders.container import PacketReader, opened, prepare_stream
from extractors.decoders.nal import FrameNumbers, NalReader
from extractors.frames import sample_frames

X264 = {"preset": "superfast", "x264-params": "keyint=30:scenecut=0:bframes=3"}


def write(path, count=90, *, codec="libx264", options=X264, muxer=None):
    with av.open(str(path), "w", options=muxer or {}) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        rng = np.random.default_rng(0)
        for number in range(count):
            picture = np.full((64, 64, 3), 10 + number % 240, np.uint8)
            picture[:16] = rng.integers(0, 255, (16, 64, 3))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def packets(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return [bytes(packet) for packet in container.demux(stream) if packet.size], stream.codec_context.extradata


def test_numbers_of_some_bits():
    # 101 then Exp-Golomb 1, 010, 00101 (0, 1, 4), then the end
    bits = Bits(int("1011010001010000", 2).to_bytes(2, "big"))
    assert (bits.take(3), bits.golomb(), bits.golomb(), bits.golomb(), bits.overrun) == (5, 0, 1, 4, False)
    assert (bits.take(9), bits.overrun) == (0, True)


@pytest.fixture(scope="module")
def av1(tmp_path_factory):
    options = {"preset": "10", "g": "40", "svtav1-params": "lp=1"}
    return write(tmp_path_factory.mktemp("av1") / "clip.mp4", 100, codec="libsvtav1", options=options)


def test_av1_frames_without_the_units_that_nothing_refers_to(av1):
    contents, extradata = packets(av1)
    reader = Av1Reader(extradata)
    notes = [reader.read(content) for content in contents]
    with av.open(str(av1)) as container:
        assert [note.entry for note in notes] == [p.is_keyframe for p in container.demux(video=0) if p.size]
    spare = {at for at, note in enumerate(notes) if not note.reference}
    assert len(spare) > 10
    shown = [{}, {}]
    for found, left_out in zip(shown, (set(), spare), strict=True):
        with av.open(str(av1)) as container:
            stream = container.streams.video[0]
            stream.thread_type, stream.codec_context.thread_count = "NONE", 1
            for at, packet in enumerate(container.demux(stream)):
                if at not in left_out:
                    found.update((frame.pts, frame.to_ndarray().tobytes()) for frame in stream.decode(packet))
    whole, rest = shown
    assert (len(whole), len(rest)) == (100, 100 - len(spare))
    assert all(whole[pts] == picture for pts, picture in rest.items())


def test_av1_units_that_make_no_sense_are_never_left_out(av1):
    contents, extradata = packets(av1)
    rng = np.random.default_rng(1)
    for content in (b"", b"\0", b"\xff" * 20, b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x32\x05\x10"):
        assert Av1Reader(extradata).read(content).reference
    for content in contents[:20]:
        Av1Reader(extradata).read(content[: int(rng.integers(len(content)))])
        assert Av1Reader(None).read(content).reference  # no sequence header, so nothing is known


def test_frame_numbers_tell_what_is_missing(tmp_path):
    contents, extradata = packets(write(tmp_path / "clip.mp4"))
    reader = NalReader("h264", extradata)
    notes = [reader.read(content) for content in contents]
    assert {note.reference for note in notes} == {True, False}
    for missing, (note, following) in enumerate(pairwise(notes)):
        if note.entry:
            continue
        numbers = FrameNumbers(reader, extradata)
        for at, content in enumerate(contents):
            if at != missing:
                numbers.note(content)
        # a keyframe starts anew, whatever is missing before it
        assert numbers.gap == (note.reference and not following.entry), missing


def test_frame_numbers_start_anew(tmp_path):
    contents, extradata = packets(write(tmp_path / "clip.mp4"))
    numbers = FrameNumbers(NalReader("h264", extradata), extradata)
    numbers.note(contents[0])
    numbers.restart()
    numbers.note(contents[20])
    assert not numbers.gap
    silent = FrameNumbers(NalReader("h264", extradata), None)  # no parameter set: nothing is claimed
    for content in contents[::7]:
        silent.note(content)
    assert not silent.gap


MOVIES = {
    "plain.mp4": {},
    "first.mp4": {"muxer": {"movflags": "+faststart"}},
    "negative.mp4": {"muxer": {"movflags": "+negative_cts_offsets"}},
    "no_offsets.mp4": {"options": {"preset": "ultrafast", "x264-params": "bframes=0:keyint=20"}},
    "no_edits.mov": {"muxer": {"use_editlist": "0"}},
    "hevc.mp4": {
        "codec": "libx265",
        "options": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=25"},
    },
    "slices.mp4": {"options": {"preset": "superfast", "x264-params": "slices=3:aud=1:keyint=25"}},
}


@pytest.mark.parametrize("name", MOVIES)
def test_the_tables_of_a_file_say_what_its_packets_say(tmp_path, name):
    path = write(tmp_path / name, **MOVIES[name])
    with opened(path) as container:
        looked_up = scan.look_up(path, container, prepare_stream(container, 0))
    with opened(path) as container:
        read = scan.scan_packets(container, prepare_stream(container, 0))
    assert looked_up.problem is None
    for field in ("pts", "shown", "entries", "spare", "time_base", "codec"):
        assert getattr(looked_up, field) == getattr(read, field), field
    latest = max(range(len(read.pts)), key=read.pts.__getitem__)
    assert looked_up.duration[latest] == read.duration[latest]


@pytest.mark.parametrize("name", ["fragmented.mp4", "clip.mkv", "cut.mp4", "twice.mp4"])
def test_files_whose_tables_do_not_tell_all(tmp_path, name):
    muxer = {"fragmented.mp4": {"movflags": "+frag_keyframe+empty_moov"}, "cut.mp4": {"movflags": "+faststart"}}
    path = write(tmp_path / name, muxer=muxer.get(name))
    content = path.read_bytes()
    if name == "cut.mp4":
        path.write_bytes(content[: len(content) * 2 // 3])
    if name == "twice.mp4":
        path.write_bytes(content + content[content.index(b"moov") - 4 :])
    with opened(path) as container:
        assert sample_table.read_table(path, container, prepare_stream(container, 0)) is None


def test_a_table_that_foretells_other_packets_is_not_believed(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mp4", 240)
    right = sample_frames(path)
    honest = sample_table._display_offsets

    def lying(*arguments):
        offsets = honest(*arguments)
        offsets[100:] += 512
        return offsets

    monkeypatch.setattr(sample_table, "_display_offsets", lying)
    with opened(path) as container:
        stream = prepare_stream(container, 0)
        with pytest.raises(scan.NotAsForetoldError):
            scan.look_up(path, container, stream)
    found = sample_frames(path)
    np.testing.assert_array_equal(found.data, right.data)
    np.testing.assert_array_equal(found.pts_seconds, right.pts_seconds)
    assert found.decoder == "planned"


@pytest.mark.parametrize(
    ("runs", "count", "expected"),
    [
        ([(2, 512), (1, 0), (1, -3)], 4, [512, 512, 0, -3]),
        ([(2, 512)], 3, None),  # too few
        ([(1, 1 << 28)], 1, None),
        ([], 0, []),
    ],
)
def test_display_offsets_are_written_out(runs, count, expected):
    table = struct.pack(">II", 0, len(runs)) + b"".join(struct.pack(">Ii", *run) for run in runs)
    found = sample_table._expand(table, count)
    assert found is None if expected is None else found.tolist() == expected
    assert sample_table._expand(table + b"\0", count) is None


def test_packets_of_one_file_are_read_whole_by_the_reader(tmp_path):
    path = write(tmp_path / "clip.mp4", 40)
    with opened(path) as container:
        stream = prepare_stream(container, 0)
        reader = PacketReader(container, stream)
        assert len(list(reader)) == 40
        assert not reader.truncated
