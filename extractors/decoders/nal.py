"""What a packet of H.264 or HEVC says about itself, read from the headers of its NAL units.

Containers flag packets as keyframes that are none: a recovery point of an intra-refresh stream, or an I picture that
later pictures look past. Exact decoding from the middle of a file starts only where the stream itself promises it:

* H.264 (ITU-T H.264, 7.4.1.2.4 and D.2.8): an IDR picture, or a recovery point SEI with ``recovery_frame_cnt = 0`` and
  ``exact_match_flag = 1``: every picture from there on in output order is exact.
* HEVC (ITU-T H.265, 7.4.2.2): an IRAP picture (types 16 to 21); its trailing pictures refer to nothing before it.

A picture that nothing refers to may be left out: H.264 ``nal_ref_idc = 0``; HEVC sub-layer non-reference types in the
highest temporal sub-layer (in a lower one, pictures of higher sub-layers may still refer to them).
"""

from __future__ import annotations

from extractors.decoders.bits import Bits
from extractors.decoders.notes import PacketNotes

_HIGH_PROFILES = frozenset((44, 83, 86, 100, 110, 118, 122, 128, 134, 135, 138, 139, 244))
_HEVC_NON_REFERENCE = frozenset(range(0, 16, 2))
_SLICE_HEAD = 32  # bytes of a slice, in which its frame number lies


class NalReader:
    """Reads packets of one stream.

    Args:
        codec: ``h264`` or ``hevc``.
        extradata: The decoder configuration of the container, which says how units are delimited.

    Attributes:
        length_size: Bytes of the length before each unit; 0 where start codes delimit them.
    """

    def __init__(self, codec: str, extradata: bytes | None) -> None:
        self._hevc = codec == "hevc"
        self._alone: dict[bytes, PacketNotes] = {}
        self.length_size = 0
        position = 21 if self._hevc else 4
        if extradata is not None and len(extradata) > position and extradata[0] == 1:
            self.length_size = (extradata[position] & 3) + 1

    def read(self, packet: bytes) -> PacketNotes:
        """Read the headers of one packet."""
        units = self.units(packet)
        if self.length_size and (not units or units[-1][1] != len(packet)):
            return PacketNotes(entry=False, reference=True, layer=0, parameter_sets=(), whole=False)
        if len(units) != 1:
            return _read_hevc(packet, units) if self._hevc else _read_h264(packet, units)
        # most packets are one picture in one unit, of which there are few kinds
        start = units[0][0]
        header = packet[start : start + 2] if self._hevc else packet[start : start + 1]
        notes = self._alone.get(header)
        if notes is None:
            notes = _read_hevc(packet, units) if self._hevc else _read_h264(packet, units)
            if not notes.parameter_sets:
                self._alone[header] = notes
        return notes

    def units(self, packet: bytes) -> list[tuple[int, int]]:
        """Start and end of every NAL unit."""
        units: list[tuple[int, int]] = []
        if self.length_size:
            position, size = 0, self.length_size
            while position + size < len(packet):
                start = position + size
                end = start + int.from_bytes(packet[position:start], "big")
                if end > len(packet) or end == start:
                    break
                units.append((start, end))
                position = end
            return units
        start = packet.find(b"\0\0\1")
        while start >= 0:
            following = packet.find(b"\0\0\1", start + 3)
            end = following if following >= 0 else len(packet)
            if end > start + 3:
                units.append((start + 3, end))
            start = following
        return units


class FrameNumbers:
    """Whether reference pictures are missing between packets of H.264 (ITU-T H.264, 7.4.3, ``frame_num``).

    FFmpeg fills such a gap with copies and reports nothing, so that what is decoded after it depends on what was
    decoded before.

    Args:
        reader: Finds the units of a packet.
        extradata: The decoder configuration of the container, with a sequence parameter set.
    """

    def __init__(self, reader: NalReader, extradata: bytes | None) -> None:
        self._reader = reader
        self._bits: int | None = _frame_number_bits(extradata or b"")
        self._latest: int | None = None
        self.gap = False

    def restart(self) -> None:
        """Forget the pictures before: decoding starts anew."""
        self._latest = None

    def note(self, packet: bytes) -> None:
        """Note the next packet in decoding order; sets ``gap`` where something is missing before it."""
        for start, end in self._reader.units(packet):
            kind, importance = packet[start] & 31, packet[start] >> 5 & 3
            if kind == 7:
                self._bits = _frame_number_bits(b"\0\0\1" + packet[start:end])
            if kind not in (1, 5) or self._bits is None:
                continue
            bits = Bits(packet[start + 1 : min(end, start + _SLICE_HEAD)].replace(b"\0\0\3", b"\0\0"))
            for _ in range(3):
                bits.golomb()  # first_mb_in_slice, slice_type, pic_parameter_set_id
            number = bits.take(self._bits)
            following = {None, number, (number - 1) % (1 << self._bits)}
            self.gap = self.gap or (kind != 5 and self._latest not in following)
            if importance:
                self._latest = number


def _frame_number_bits(configuration: bytes) -> int | None:
    """Length of ``frame_num`` as the first sequence parameter set says; None where it is not plainly told."""
    start = configuration.find(b"\x67")
    if start < 0:
        return None
    bits = Bits(configuration[start + 1 :].replace(b"\0\0\3", b"\0\0"))
    profile = bits.take(8)
    bits.take(16)
    bits.golomb()  # seq_parameter_set_id
    if profile in _HIGH_PROFILES:
        planes_apart = bits.golomb() == 3 and bits.take(1)
        bits.golomb()
        bits.golomb()
        bits.take(1)
        if planes_apart or bits.take(1):  # scaling matrices
            return None
    length = bits.golomb() + 4
    return None if bits.overrun or length > 16 else length


def _read_h264(packet: bytes, units: list[tuple[int, int]]) -> PacketNotes:
    entry, reference, pictures = False, False, 0
    sets: list[bytes] = []
    for start, end in units:
        kind, importance = packet[start] & 31, packet[start] >> 5 & 3
        if kind in (1, 2, 3, 4, 5, 20, 21):
            pictures += 1
            reference = reference or importance > 0
            entry = entry or kind == 5
        elif kind == 6:
            entry = entry or _is_exact_recovery_point(packet[start + 1 : end])
        elif kind in (7, 8, 13, 15):
            sets.append(packet[start:end].rstrip(b"\0"))
    return PacketNotes(entry and pictures > 0, reference or pictures == 0, 0, tuple(sets))


def _read_hevc(packet: bytes, units: list[tuple[int, int]]) -> PacketNotes:
    entry, reference, layer, pictures = False, False, 0, 0
    sets: list[bytes] = []
    for start, end in units:
        if end - start < 2 or packet[start] & 1 or packet[start + 1] >> 3:
            continue  # another layer of a multi-layer stream, which is not decoded
        kind = packet[start] >> 1 & 63
        if kind < 32:
            pictures += 1
            layer = max(layer, (packet[start + 1] & 7) - 1)
            reference = reference or kind not in _HEVC_NON_REFERENCE
            entry = entry or 16 <= kind <= 21
        elif kind in (32, 33, 34):
            sets.append(packet[start:end].rstrip(b"\0"))
    return PacketNotes(entry, reference or pictures == 0, layer, tuple(sets))


def _is_exact_recovery_point(payload: bytes) -> bool:
    """Whether a SEI unit holds a recovery point that is exact at once."""
    data = payload.replace(b"\0\0\3", b"\0\0")
    position = 0
    while position + 2 < len(data):
        kind, position = _sei_number(data, position)
        size, position = _sei_number(data, position)
        if kind == 6 and size > 0 and position < len(data):
            # ue(v) zero is the single bit 1; the next bit is exact_match_flag
            return data[position] >> 6 == 0b11
        position += size
    return False


def _sei_number(data: bytes, position: int) -> tuple[int, int]:
    """A number written as a run of 255 and one last byte; and the position after it."""
    value = 0
    while position < len(data) and data[position] == 255:
        value += 255
        position += 1
    if position < len(data):
        value += data[position]
    return value, position + 1
