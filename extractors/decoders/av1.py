"""What a temporal unit of AV1 says about itself, read from the headers of its OBUs (AV1 specification, 5.5, 5.9).

A temporal unit holds one shown picture and often hidden ones before it, which later units refer to or show. A picture
depends on the pictures in the reference slots that its header names, and on no others: samples, motion vectors,
probabilities, segmentation, loop filter and film grain parameters are all loaded from these slots (7.20, 7.21). So the
headers alone tell what may be left out. A unit is an entry point when it begins with a key frame that is shown at once,
which fills all slots.

Streams with timing information, frame numbers, or several operating points are read no further: nothing is left out of
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

from extractors.decoders.bits import Bits
from extractors.decoders.notes import Frame, PacketNotes, Sequence
from extractors.decoders.pared import Picture

_SEQUENCE_HEADER = 1
_FRAMES = frozenset((3, 6))  # a frame's header, alone or with its tiles
_CONTINUED = frozenset((4, 7))  # more tiles, or the header again
_NONSENSE = -1
_DAMAGE = frozenset((_NONSENSE, 0, *range(9, 15)))  # the others are reserved types
_KEY, _INTRA_ONLY, _SWITCH = 0, 2, 3
_EITHER = 2  # each frame says for itself
_UNWRITTEN = bytes(4)  # coded data ends in a byte that is not zero
_COUNT, _ALL = 8, 0xFF  # reference slots
_HEAD = 8  # bytes; what is read of a frame header lies within them


class Av1Reader:
    """Reads packets of one stream, in decoding order.

    Args:
        extradata: The ``av1C`` configuration of the container (four bytes, then OBUs), if there is one.
    """

    length_size: ClassVar[int] = 0

    def __init__(self, extradata: bytes | None) -> None:
        self._sequence: Sequence | None = None
        for kind, _, body, end in _units(extradata or b"", 4):
            if kind == _SEQUENCE_HEADER:
                self._sequence = _read_sequence(Bits((extradata or b"")[body:end]))

    def read(self, packet: bytes) -> PacketNotes:
        """Read the headers of one packet; of its frames, where they lie."""
        sets: list[bytes] = []
        frames: list[Frame] = []
        whole = not packet.endswith(_UNWRITTEN)
        for kind, start, body, end in _units(packet):
            if kind in _FRAMES:
                frames.append(Frame(self._sequence, packet[body : min(end, body + _HEAD)], start, end))
            elif kind == _SEQUENCE_HEADER:
                sets.append(packet[body:end])
                self._sequence = _read_sequence(Bits(packet[body:end]))
            elif kind in _CONTINUED and frames:
                frames[-1] = frames[-1]._replace(end=end)
            elif kind in _DAMAGE:
                whole = False
        entry = bool(frames) and frames[0].head[0] >> 4 == _KEY << 1 | 1
        return PacketNotes(
            entry=entry,
            reference=True,
            layer=0,
            parameter_sets=tuple(sets),
            whole=whole,
            frames=tuple(frames),
        )


def follow(packets: Iterable[tuple[Frame, ...]]) -> list[tuple[Picture, ...]] | None:
    """What each picture depends on, from an entry point on.

    Args:
        packets: The frames of each packet, of which the first is an entry point.

    Returns:
        The pictures of each packet; None where they cannot be followed.
    """
    slots = _Slots()
    found: list[tuple[Picture, ...]] = []
    for frames in packets:
        pictures = [slots.follow(frame) for frame in frames]
        known = [picture for picture in pictures if picture is not None]
        if len(known) < len(frames) or sum(picture.shown for picture in known) != 1:
            return None
        found.append(tuple(known))
    return found


class _Slots:
    """Which pictures the reference slots hold, by their numbers in decoding order."""

    def __init__(self) -> None:
        self._held: list[int | None] = [None] * _COUNT
        self._keys: set[int] = set()
        self._number = -1

    def follow(self, frame: Frame) -> Picture | None:
        """Do to the slots what a frame does (AV1 specification, 5.9.2); None where that is not known."""
        self._number += 1
        if frame.sequence is None:
            return None
        first = frame.head[0]
        kind, shown = first >> 5, bool(first & 0x10)
        if first & 0x80:  # show_existing_frame
            shown, needs, refreshed = True, {self._held[first >> 4 & 7]}, 0
            if not needs.isdisjoint(self._keys):  # a key frame that is shown later fills all slots then
                refreshed = _ALL
                self._keys.add(self._number)
        elif kind == _KEY and shown:
            needs, refreshed = set[int | None](), _ALL
        else:
            bits = Bits(frame.head)
            bits.take(4 if shown else 5)  # the above, and showable_frame
            needs, refreshed = self._read(bits, kind, frame.sequence)
            if bits.overrun:
                return None
        if kind == _KEY:
            self._keys.add(self._number)
        self._held = [self._number if refreshed >> slot & 1 else before for slot, before in enumerate(self._held)]
        known = frozenset(need for need in needs if need is not None)
        return Picture(self._number, known, shown, frame.start, frame.end) if len(known) == len(needs) else None

    def _read(self, bits: Bits, kind: int, sequence: Sequence) -> tuple[set[int | None], int]:
        """What a frame may refer to, and which slots it fills, from what follows ``showable_frame`` in its header."""
        intra = kind in (_KEY, _INTRA_ONLY)
        resilient = kind == _SWITCH or bits.take(1) == 1
        bits.take(1)  # disable_cdf_update
        screen_content = bits.take(1) if sequence.screen_content == _EITHER else sequence.screen_content
        if screen_content and sequence.integer_motion == _EITHER:
            bits.take(1)
        bits.take((kind != _SWITCH) + sequence.order_hint_bits)  # frame_size_override_flag, order_hint
        if not intra and not resilient:
            bits.take(3)  # primary_ref_frame, one of the seven below
        refreshed = _ALL if kind == _SWITCH else bits.take(8)
        if resilient:  # may change what is noted about any slot
            return set(self._held), refreshed
        if intra:
            return set(), refreshed
        if sequence.order_hint_bits and bits.take(1):  # frame_refs_short_signaling: looks at all slots
            return set(self._held), refreshed
        named = bits.take(3 * 7)
        return {self._held[named >> shift & 7] for shift in range(0, 3 * 7, 3)}, refreshed


def _units(data: bytes, position: int = 0) -> list[tuple[int, int, int, int]]:
    """Type, start, start of the content and end of every OBU; one that makes no sense is the last, ``_NONSENSE``."""
    found: list[tuple[int, int, int, int]] = []
    total = len(data)
    while position < total:
        start, head = position, data[position]
        position += 2 if head & 4 else 1
        size = total - position
        if head & 2:
            if position < total and data[position] < 128:
                size = data[position]
                position += 1
            else:
                size, position = _leb128(data, position)
        end = position + size
        kind = head >> 3 & 15
        if head & 0x80 or size < (kind in _FRAMES) or end > total:
            found.append((_NONSENSE, start, total, total))
            break
        found.append((kind, start, position, end))
        position = end
    return found


def _leb128(data: bytes, position: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first; and the position after it; -1 where it does not end."""
    value = 0
    for index, byte in enumerate(data[position : position + 8]):
        value |= (byte & 127) << 7 * index
        if byte < 128:
            return value, position + index + 1
    return -1, position


def _read_sequence(bits: Bits) -> Sequence | None:
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
    return None if bits.overrun else Sequence(screen_content, integer_motion, order_hint_bits)
