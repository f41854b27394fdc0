"""What a temporal unit of AV1 says about itself, read from the headers of its OBUs (AV1 specification, 5.5, 5.9).

A frame that refreshes no reference slot leaves nothing behind, neither pixels nor probabilities: where the unit holds
no other frame, it may be left out. A frame is an entry point when it is a key frame that is shown at once.

Streams with timing information, frame numbers, or several operating points are read no further: all their units count
as referred to.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from extractors.decoders.bits import Bits
from extractors.decoders.nal import PacketNotes

_SEQUENCE_HEADER, _FRAME_HEADER, _FRAME = 1, 3, 6
_NONSENSE = -1
_RESERVED = frozenset((0, *range(9, 15)))
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_EITHER = 2  # each frame says for itself
_UNWRITTEN = bytes(4)  # coded data ends in a byte that is not zero


@dataclass(frozen=True)
class _Sequence:
    """What of a sequence header is needed to read frame headers."""

    screen_content: int
    integer_motion: int
    order_hint_bits: int


class Av1Reader:
    """Reads packets of one stream.

    Args:
        extradata: The ``av1C`` configuration of the container (four bytes, then OBUs), if there is one.
    """

    length_size: ClassVar[int] = 0

    def __init__(self, extradata: bytes | None) -> None:
        self._sequence: _Sequence | None = None
        for kind, content in _units((extradata or b"")[4:]):
            if kind == _SEQUENCE_HEADER:
                self._sequence = _read_sequence(Bits(content))

    def read(self, packet: bytes) -> PacketNotes:
        """Read the headers of one packet."""
        entry, reference, frames = False, False, 0
        sets: list[bytes] = []
        whole = not packet.endswith(_UNWRITTEN)
        for kind, content in _units(packet):
            whole = whole and kind != _NONSENSE and kind not in _RESERVED
            if kind == _SEQUENCE_HEADER:
                sets.append(content)
                self._sequence = _read_sequence(Bits(content))
            elif kind in (_FRAME_HEADER, _FRAME):
                frames += 1
                bits = Bits(content)
                shown_again, frame_type, shown = bits.take(1), bits.take(2), bits.take(1)
                entry = entry or (frames == 1 and not shown_again and frame_type == _KEY and shown == 1)
                reference = reference or shown_again == 1 or shown == 0 or self._refreshes(bits, frame_type)
        return PacketNotes(entry, reference or frames == 0, 0, tuple(sets), whole)

    def _refreshes(self, bits: Bits, frame_type: int) -> bool:
        """Whether a shown frame refreshes a reference slot, from what follows ``show_frame`` in its header."""
        sequence = self._sequence
        if sequence is None or frame_type in (_KEY, _SWITCH):
            return True
        resilient = bits.take(1)
        bits.take(1)  # disable_cdf_update
        screen_content = bits.take(1) if sequence.screen_content == _EITHER else sequence.screen_content
        if screen_content and sequence.integer_motion == _EITHER:
            bits.take(1)
        bits.take(1 + sequence.order_hint_bits)  # frame_size_override_flag, order_hint
        if frame_type != _INTRA_ONLY and not resilient:
            bits.take(3)  # primary_ref_frame
        return bits.take(8) != 0 or bits.overrun


def _units(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and content of every OBU; the first that makes no sense is the last, of the type ``_NONSENSE``."""
    position = 0
    while position < len(data):
        head = data[position]
        position += 2 if head & 4 else 1
        size = len(data) - position
        if head & 2:
            size, position = _leb128(data, position)
        if head & 0x80 or size < 0 or position + size > len(data):
            yield _NONSENSE, b""
            return
        yield head >> 3 & 15, data[position : position + size]
        position += size


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and the position after it; -1 where it does not end."""
    value = 0
    for index, byte in enumerate(data[position : position + 8]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    return -1, position


def _read_sequence(bits: Bits) -> _Sequence | None:
    """Read a sequence header; None for the kinds that are not read further."""
    bits.take(4)  # seq_profile, still_picture
    reduced, timing, delay, more_points, point = (bits.take(count) for count in (1, 1, 1, 5, 12))
    if reduced or timing or delay or more_points or point:
        return None
    if bits.take(5) > 7:  # seq_level_idx
        bits.take(1)
    width_bits, height_bits = bits.take(4) + 1, bits.take(4) + 1
    bits.take(width_bits + height_bits)
    if bits.take(1):  # frame_id_numbers_present_flag
        return None
    bits.take(3 + 4)  # block size and intra tools; inter tools
    ordered = bits.take(1)
    if ordered:
        bits.take(2)
    screen_content = _EITHER if bits.take(1) else bits.take(1)
    integer_motion = _EITHER
    if screen_content and not bits.take(1):
        integer_motion = bits.take(1)
    order_hint_bits = bits.take(3) + 1 if ordered else 0
    return None if bits.overrun else _Sequence(screen_content, integer_motion, order_hint_bits)
