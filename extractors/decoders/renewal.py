"""Decoding on after damage in H.264, with another decoder.

FFmpeg leaves the coefficients of a block that it could not read to the end where they are, and adds them to the next
picture that uses their place. That may be a keyframe, which is then wrong without a word, and with it all pictures up
to the next one; flushing the decoder does not clear them. A decoder that nothing was wrong with begins at the next
picture that promises an exact start.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from itertools import chain
from pathlib import Path

from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from extractors.decoders.container import VideoPacket, codec_name, decode_one, opened, prepare_stream
from extractors.decoders.nal import NalReader


class Decoding:
    """One pass over the packets of a stream.

    Args:
        path: The file.
        stream: The stream, set up for decoding.
        damaged: Positions of packets with which something was wrong in an earlier pass; of H.264 alone.

    Attributes:
        renewed: Positions of the packets at which another decoder took over, as far as the pass has come.
    """

    def __init__(self, path: Path, stream: VideoStream, damaged: AbstractSet[int]) -> None:
        self._path = path
        self._stream = stream
        self._damaged = damaged
        self.renewed: set[int] = set()

    def run(self, packets: Iterable[VideoPacket]) -> Iterator[tuple[list[VideoFrame], str | None]]:
        """Decode packets and then what the decoder still holds; yields as ``decode`` does, and before each renewal."""
        stream, index, spoilt = self._stream, self._stream.index, False
        reader = NalReader(codec_name(stream), stream.codec_context.extradata)
        with ExitStack() as stack:
            for position, packet in enumerate(chain(packets, (None,))):
                if spoilt and packet is not None and reader.read(bytes(packet)).entry:
                    yield decode_one(stream, None)
                    stack.close()
                    stream = prepare_stream(stack.enter_context(opened(self._path)), index)
                    self.renewed.add(position)
                    spoilt = False
                spoilt = spoilt or position in self._damaged
                yield decode_one(stream, packet)
