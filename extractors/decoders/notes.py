"""What the headers of a packet say before anything is decoded."""

from __future__ import annotations

from typing import NamedTuple


class Sequence(NamedTuple):
    """What of an AV1 sequence header is needed to read frame headers."""

    screen_content: int
    integer_motion: int
    order_hint_bits: int


class Frame(NamedTuple):
    """A coded frame of AV1, whose header is not read yet.

    Attributes:
        sequence: The sequence that it belongs to; None where that is not known.
        head: The first bytes of its header.
        start: Where its units begin in the packet.
        end: Where they end.
    """

    sequence: Sequence | None
    head: bytes
    start: int
    end: int


class PacketNotes(NamedTuple):
    """What the headers of one packet say.

    Attributes:
        entry: Decoding may start here.
        reference: Another picture may refer to this one (within its sub-layer, for HEVC).
        layer: Temporal sub-layer (0 for H.264 and AV1).
        parameter_sets: Sequence, picture and video parameter sets inside the packet.
        whole: The lengths of its units add up to the packet; False tells of damage.
        frames: The frames of AV1, whose packets may hold several.
    """

    entry: bool
    reference: bool
    layer: int
    parameter_sets: tuple[bytes, ...]
    whole: bool = True
    frames: tuple[Frame, ...] = ()
