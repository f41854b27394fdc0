"""The parts below the decoders: headers of packets, boxes of files, and the batch that checks itself."""

import struct

import numpy as np
import pytest

from extractors.decoders.batch import FrameBatch
from extractors.decoders.boxes import has_encrypted_video
from extractors.decoders.nal import NalReader
from extractors.errors import FRAME_REASONS, FrameError

# One byte of header each: forbidden bit, nal_ref_idc (2 bits), nal_unit_type (5 bits).
IDR, SLICE, SPARE, SPS, PPS = b"\x65\xaa", b"\x41\xaa", b"\x01\xaa", b"\x67\x4d", b"\x68\xee"


def annex_b(*units):
    return b"".join(b"\0\0\0\1" + unit for unit in units)


def prefixed(*units):
    return b"".join(struct.pack(">I", len(unit)) + unit for unit in units)


def recovery_point(bits):
    """A SEI unit (type 6) with a recovery point (payload type 6) of one byte."""
    return bytes([0x06, 6, 1, int(bits.ljust(8, "0"), 2), 0x80])


AVCC = b"\x01\x4d\x00\x1f\xff"


def test_a_packet_whose_lengths_do_not_add_up_is_damaged():
    reader = NalReader("h264", AVCC)
    assert reader.read(prefixed(IDR, IDR)).whole
    for packet in (prefixed(IDR) + bytes(5), prefixed(IDR, SLICE)[:-1], bytes(20)):
        assert not reader.read(packet).whole
    assert NalReader("h264", None).read(annex_b(IDR) + bytes(5)).whole  # start codes tell no lengths


@pytest.mark.parametrize(("join", "extradata"), [(annex_b, None), (annex_b, b"\0\0\0\1\x67"), (prefixed, AVCC)])
def test_h264_packets(join, extradata):
    reader = NalReader("h264", extradata)
    key = reader.read(join(SPS, PPS, IDR, IDR))
    assert (key.entry, key.reference, key.parameter_sets) == (True, True, (SPS, PPS))
    plain = reader.read(join(SLICE))
    assert (plain.entry, plain.reference, plain.parameter_sets) == (False, True, ())
    assert not reader.read(join(SPARE, SPARE)).reference
    assert reader.read(join(SPARE, SLICE)).reference  # one of two fields
    assert reader.read(join(SPS)).reference  # no picture at all: never left out


@pytest.mark.parametrize(
    ("bits", "entry"),
    [
        ("11", True),  # recovery_frame_cnt = 0, exact
        ("10", False),  # not exact
        ("0101", False),  # recovery_frame_cnt = 1: an intra refresh
        ("0111", False),
    ],
)
def test_only_an_exact_recovery_point_is_an_entry(bits, entry):
    reader = NalReader("h264", None)
    assert reader.read(annex_b(recovery_point(bits), SLICE)).entry is entry
    other = bytes([0x06, 5, 2, 0xFF, 0xFF, 6, 1, int(bits.ljust(8, "0"), 2), 0x80])  # behind another message
    assert reader.read(annex_b(other, SLICE)).entry is entry


def hevc(kind, layer=0, temporal=0):
    return bytes([kind << 1 | layer >> 5, (layer & 31) << 3 | temporal + 1, 0xAA])


def test_hevc_packets():
    reader = NalReader("hevc", None)
    for kind in (16, 18, 19, 20, 21):
        assert reader.read(annex_b(hevc(32), hevc(33), hevc(kind))).entry
    trailing = reader.read(annex_b(hevc(1, temporal=2)))
    assert (trailing.entry, trailing.reference, trailing.layer) == (False, True, 2)
    assert not reader.read(annex_b(hevc(0, temporal=1))).reference
    assert not reader.read(annex_b(hevc(8))).reference
    # a second view (layer 1) is not decoded and says nothing about the first
    assert not reader.read(annex_b(hevc(0), hevc(1, layer=1))).reference
    hvcc = bytes([1, *[0] * 20, 3])
    assert NalReader("hevc", hvcc).read(prefixed(hevc(19))).entry


@pytest.mark.parametrize(
    "packet", [b"", b"\0", b"\0\0\1", b"\0\0\0\0", b"\xff" * 9, b"\0\0\0\2\x65", b"\0\0\1\x06\x06"]
)
def test_damaged_packets_are_no_entry_and_are_never_left_out(packet):
    for codec in ("h264", "hevc"):
        for extradata in (None, AVCC, bytes([1] + [3] * 30)):
            notes = NalReader(codec, extradata).read(packet)
            assert (notes.entry, notes.reference) == (False, True)


def box(kind, *content):
    body = b"".join(content)
    return struct.pack(">I", 8 + len(body)) + kind + body


def movie(entry):
    description = box(b"stsd", bytes(8), box(entry, bytes(30)))
    return box(b"moov", box(b"trak", box(b"mdia", box(b"minf", box(b"stbl", description)))))


def test_encrypted_tracks_are_found_by_their_sample_entry(tmp_path):
    path = tmp_path / "a.mp4"
    for content, expected in (
        (movie(b"avc1"), False),
        (movie(b"encv"), True),
        (movie(b"enca"), False),
        (box(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"mdat", 20) + b"encv" + movie(b"encv"), True),
        (box(b"mdat", movie(b"encv")), False),  # what stands in the samples does not count
        (movie(b"encv")[:-40], False),
        (b"\0\0\0\4moov" * 5, False),
        (b"", False),
    ):
        path.write_bytes(content)
        assert has_encrypted_video(path) is expected
    assert not has_encrypted_video(tmp_path / "absent.mp4")


def batch(**changes):
    values = {
        "data": np.zeros((2, 4, 6, 3), np.uint8),
        "pts_seconds": np.array([0.5, 1.5]),
        "n_distinct": 2,
        "decoder": "planned",
        "codec": "h264",
        "duration_seconds": 2.0,
        "policy": "short",
    }
    return FrameBatch(**(values | changes))


def test_a_batch_shows_its_shapes():
    assert repr(batch()) == (
        "FrameBatch(data=uint8 [2, 4, 6, 3], pts_seconds=[0.5, 1.5], n_distinct=2, short of 2.000 s, h264, "
        "decoder=planned)"
    )
    assert repr(batch(truncated=True)).endswith("decoder=planned, truncated)")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data": np.zeros((2, 4, 6, 3), np.float32)}, "data: expected uint8"),
        ({"data": np.zeros((2, 3, 4, 6), np.uint8)}, "data: expected uint8"),
        ({"data": np.zeros((0, 4, 6, 3), np.uint8)}, "data: expected uint8"),
        ({"pts_seconds": np.array([0.5])}, "pts_seconds: expected float64"),
        ({"pts_seconds": np.array([1.5, 0.5])}, "ascending"),
        ({"pts_seconds": np.array([0.5, np.nan])}, "finite"),
        ({"n_distinct": 3}, "n_distinct: expected 1 to 2"),
        ({"n_distinct": 0}, "n_distinct: expected 1 to 2"),
    ],
)
def test_a_batch_checks_itself(changes, words):
    with pytest.raises(ValueError, match=words):
        batch(**changes)


def test_reasons_are_a_closed_list():
    assert {FrameError(reason, "why").reason for reason in FRAME_REASONS} == set(FRAME_REASONS)
    with pytest.raises(ValueError, match="expected one of missing_file"):
        FrameError("oops", "why")
