"""Packets without what no wanted picture depends on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from av.packet import Packet

from extractors.decoders.container import VideoPacket


class Picture(NamedTuple):
    """One coded picture of a packet that may hold several.

    Attributes:
        number: Position among the pictures of the stretch, in decoding order.
        needs: Numbers of the pictures that it may refer to.
        shown: Whether the packet shows it; a packet that repeats an earlier picture counts as one that needs it.
        start: Where its units begin in the packet.
        end: Where they end.
    """

    number: int
    needs: frozenset[int]
    shown: bool
    start: int
    end: int


class Paring(NamedTuple):
    """What of a stream is left out.

    Attributes:
        spare: Positions of the packets that show nothing then.
        cuts: By position, start and end of each part of a packet that is left out. Nothing stays of a packet that is in
            ``spare`` and not in here.
    """

    spare: set[int]
    cuts: dict[int, list[tuple[int, int]]]


def pare(packets: Sequence[tuple[Picture, ...]], start: int, wanted: set[int]) -> Paring:
    """Find out what no wanted picture depends on.

    Args:
        packets: The pictures of each packet of a stretch. The first packet, where decoding starts, stays whole.
        start: Position of the first packet in the stream.
        wanted: Positions of the packets whose shown pictures are wanted.
    """
    pictures = [picture for packet in packets for picture in packet]
    pending = [picture.number for picture in packets[0]]
    for at, packet in enumerate(packets, start):
        if at in wanted:
            pending += [picture.number for picture in packet if picture.shown]
    needed: set[int] = set()
    while pending:
        number = pending.pop()
        if number not in needed:
            needed.add(number)
            pending.extend(pictures[number].needs)
    paring = Paring(set(), {})
    for at, packet in enumerate(packets, start):
        dropped = [picture for picture in packet if picture.number not in needed]
        if any(picture.shown for picture in dropped):
            paring.spare.add(at)
        if 0 < len(dropped) < len(packet):
            paring.cuts[at] = [(picture.start, picture.end) for picture in dropped]
    return paring


def cut(packet: VideoPacket, parts: list[tuple[int, int]]) -> VideoPacket:
    """A packet without some of its bytes."""
    content = bytes(packet)
    kept: list[bytes] = []
    position = 0
    for start, end in parts:
        kept.append(content[position:start])
        position = end
    rest: Any = Packet(b"".join((*kept, content[position:])))
    rest.pts, rest.dts, rest.time_base = packet.pts, packet.dts, packet.time_base
    return rest
