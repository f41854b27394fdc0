"""What is read from headers and tables before decoding: AV1 units, H.264 frame numbers, MP4 sample tables."""

import struct
from itertools import pairwise

import av
import numpy as np
import pytest

from extractors.decoders import sample_table, scan
from extractors.decoders.av1 import Av1Reader, follow
from extractors.decoders.bits import Bits
from extractors.decoders.container import PacketReader, decode, opened, prepare_stream
from extractors.decoders.nal import FrameNumbers, NalReader
from extractors.decoders.notes import Frame, Sequence
from extractors.decoders.pared import cut, pare
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
    for unfinished in (b"", b"\0", b"\1"):  # the last says that seven bits follow
        bits = Bits(unfinished)
        assert (bits.golomb(), bits.overrun) == (0, True)
        assert (bits.golomb(), bits.golomb(), bits.overrun) == (0, 0, True)


AV1 = {
    "plain": "lp=1",
    "flat": "lp=1:hierarchical-levels=2",
    "low_delay": "lp=1:pred-struct=1",
    "overlays": "lp=1:enable-overlays=1",
    "grain": "lp=1:film-grain=20:film-grain-denoise=0",
    "screen": "lp=1:scm=1",
}


def av1(folder, name="plain"):
    options = {"preset": "10", "g": "40", "svtav1-params": AV1[name]}
    return write(folder / "clip.mp4", 100, codec="libsvtav1", options=options)


def decoded(path, wanted):
    """The pictures of the given packets; each is a packet and what is left out of it."""
    found = {}
    with opened(path) as container:
        stream = prepare_stream(container, 0)
        packets = list(PacketReader(container, stream))
        chosen = [cut(packets[at], parts) if parts else packets[at] for at, parts in wanted]
        for frames, fault in decode(stream, chosen):
            assert fault is None
            found.update((frame.pts, frame.to_ndarray().tobytes()) for frame in frames)
        return [packet.pts for packet in packets], found


@pytest.mark.parametrize("name", AV1)
def test_av1_pictures_without_those_they_do_not_depend_on(tmp_path, name):
    path = av1(tmp_path, name)
    contents, extradata = packets(path)
    reader = Av1Reader(extradata)
    notes = [reader.read(content) for content in contents]
    with av.open(str(path)) as container:
        assert [note.entry for note in notes] == [p.is_keyframe for p in container.demux(video=0) if p.size]
    pts, whole = decoded(path, [(at, []) for at in range(100)])
    assert len(whole) == 100
    left_out = 0
    for at in range(1, 100, 3):
        start = max(entry for entry in range(at + 1) if notes[entry].entry)
        spare, cuts = pare(follow(note.frames for note in notes[start : at + 1]), start, {at})
        stays = [entry for entry in range(start, at + 1) if entry in cuts or entry not in spare]
        _, shown = decoded(path, [(entry, cuts.get(entry, [])) for entry in stays])
        assert set(shown) == {pts[entry] for entry in range(start, at + 1) if entry not in spare}
        assert pts[at] in shown
        assert all(whole[stamp] == picture for stamp, picture in shown.items())
        left_out += len(spare)
    assert left_out > 100


def frame_of(*fields):
    """A frame whose header holds numbers of some bits, as pairs of number and bits."""
    bits = "".join(f"{value:0{count}b}" for value, count in fields)
    return Frame(SEQUENCE, int(f"{bits:0<64}"[:64], 2).to_bytes(8, "big"), 0, 9)


SEQUENCE = Sequence(screen_content=2, integer_motion=2, order_hint_bits=7)
SHOWN_KEY = ((0, 1), (0, 2), (1, 1))
REPEAT = ((1, 1),)


def inter(refreshed, slots, *, shown=1, short=0, resilient=0):
    # show_existing_frame, frame_type, show_frame, showable_frame, error_resilient_mode, disable_cdf_update,
    # allow_screen_content_tools, frame_size_override_flag, order_hint, primary_ref_frame, refresh_frame_flags,
    # frame_refs_short_signaling, ref_frame_idx
    start = [(0, 1), (1, 2), (shown, 1), *([] if shown else [(1, 1)]), (resilient, 1), (0, 1), (0, 1), (0, 1), (9, 7)]
    primary = [] if resilient else [(0, 3)]
    return frame_of(*start, *primary, (refreshed, 8), (short, 1), *((slot, 3) for slot in slots))


def needs(*packets):
    found = follow(packets)
    return found and [[set(picture.needs) for picture in packet] for packet in found]


def test_av1_pictures_depend_on_what_the_named_slots_hold():
    key, hidden = frame_of(*SHOWN_KEY), inter(0b110, [0] * 7, shown=0)
    assert needs((key,), (hidden, inter(0, [0, 0, 0, 0, 1, 1, 2]))) == [[set()], [{0}, {0, 1}]]
    # a repeated picture rests on the one in its slot; a slot that is filled again holds the later one
    repeat = frame_of(*REPEAT, (2, 3))
    assert needs((key,), (hidden, inter(0b100, [1] * 7)), (repeat,)) == [[set()], [{0}, {1}], [{2}]]
    # all slots count where the header does not name them one by one, or may change what is noted about them
    for late in (inter(0, [1] * 7, short=1), inter(0, [1] * 7, resilient=1)):
        assert needs((key,), (hidden, late)) == [[set()], [{0}, {0, 1}]]
    # intra-only frames rest on nothing, switch frames on all, and these fill all slots
    intra = frame_of((0, 1), (2, 2), (1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (9, 7), (1, 8))
    switch = frame_of((0, 1), (3, 2), (1, 1), (0, 1), (0, 1), (9, 7))
    assert needs((key,), (hidden, intra), (switch,), (repeat,)) == [[set()], [{0}, set()], [{0, 1, 2}], [{3}]]
    # a key frame that is shown later fills all slots when it is
    hidden_key = frame_of((0, 1), (0, 2), (0, 1), (1, 1), (0, 1), (0, 1), (0, 1), (0, 1), (9, 7), (0b10, 8))
    found = needs((key,), (hidden_key, inter(0, [0] * 7)), (frame_of(*REPEAT, (1, 3)),), (inter(0, [5] * 7),))
    assert found == [[set()], [set(), {0}], [{1}], [{3}]]


def test_av1_pictures_that_cannot_be_followed():
    key = frame_of(*SHOWN_KEY)
    assert needs((inter(0, [0] * 7),)) is None  # nothing is in the slots
    assert needs((key,), (inter(0, [0] * 7, shown=0),)) is None  # a packet that shows nothing
    assert needs((key,), (key, inter(0, [0] * 7))) is None  # or two pictures
    assert needs((key,), (Frame(SEQUENCE, b"\x30\0", 0, 9),)) is None  # too short
    assert needs((key,), (key._replace(sequence=None),)) is None


def test_av1_units_that_make_no_sense(tmp_path):
    contents, extradata = packets(av1(tmp_path))
    rng = np.random.default_rng(1)
    for content in (b"\xff" * 20, b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff", b"\x32\x05\x10", b"\x32\0"):
        notes = Av1Reader(extradata).read(content)
        assert (notes.entry, notes.whole, notes.frames) == (False, False, ())
    for content in contents[:20]:
        follow([Av1Reader(extradata).read(content[: int(rng.integers(len(content)))]).frames])
    reader = Av1Reader(None)  # no sequence header, so nothing is known
    assert follow([reader.read(content).frames for content in contents[1:20]]) is None


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
