"""Opening a video file with PyAV, choosing its stream, and turning decoded frames into upright RGB arrays.

FFmpeg's own log callback is put back before anything else: PyAV's needs the interpreter lock, and a decoder that logs
an error while it is being freed would wait for it for ever. Frame and slice threads stay off for the same reason, and
because one process per core is faster than several threads per file.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any, TypeAlias

import av
import av.error
import av.logging
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Discard, Disposition
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from extractors.decoders.batch import FrameBatch
from extractors.decoders.boxes import has_encrypted_video
from extractors.errors import FrameError

VideoPacket: TypeAlias = "Packet[VideoStream]"

MAX_PIXELS = 1 << 26
"""Largest picture that is decoded, in pixels (an 8K frame has half as many)."""

_NOT_VIDEO = {"concat", "dash", "ffmetadata", "hls", "image2", "imf", "lavfi", "tty"}
"""Formats that FFmpeg reads, but that name other files or hold text: never followed."""

_OPTIONS = {"protocol_whitelist": "file", "skip_loop_filter": "all"}
"""FFmpeg decodes the first pictures while it opens a file, to learn their format, and throws them away: these need no
loop filter. The contexts that decode for us are others and know nothing of it."""

_QUIET = -8  # AV_LOG_QUIET


class NothingDecodedError(FrameError):
    """A stream gives not one frame: the next stream of the file may."""


@contextmanager
def opened(path: Path) -> Generator[InputContainer]:
    """Open a video file.

    Yields:
        The container.

    Raises:
        FrameError: ``missing_file``, ``unreadable`` or ``encrypted``; and ``too_large`` when memory runs out while it
            is open.
    """
    av.logging.restore_default_callback()
    av.logging.set_libav_level(_QUIET)
    if not path.exists():
        raise FrameError("missing_file", f"{path} does not exist")
    if not path.is_file():
        raise FrameError("unreadable", f"{path} is not a regular file")
    try:
        if path.stat().st_size == 0:
            raise FrameError("unreadable", f"{path.name} is empty")
        container = av.open(f"file:{path.absolute()}", options=_OPTIONS, metadata_errors="replace")
    except MemoryError as error:
        raise FrameError("too_large", f"{path.name} asks for more memory than there is") from error
    except (av.error.FFmpegError, OSError) as error:
        if has_encrypted_video(path):
            raise FrameError("encrypted", f"the video track of {path.name} is encrypted") from error
        raise FrameError("unreadable", f"{path.name} is no video that FFmpeg can open: {explain(error)}") from error
    with container:
        names = set(container.format.name.split(","))
        if names & _NOT_VIDEO or any(name.endswith("_pipe") for name in names):
            raise FrameError("unreadable", f"{path.name} is no video file: FFmpeg reads it as {container.format.name}")
        try:
            yield container
        except MemoryError as error:  # damaged sizes ask for any amount
            raise FrameError("too_large", f"{path.name} asks for more memory than there is") from error


def explain(error: BaseException) -> str:
    """FFmpeg's words for an error, without the path."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def video_streams(container: InputContainer, path: Path) -> list[int]:
    """Indices of the video streams that are no attached picture, in file order.

    Raises:
        FrameError: ``no_video`` when there is none.
    """
    videos = container.streams.video
    pictures = Disposition.attached_pic | Disposition.timed_thumbnails
    found = [stream.index for stream in videos if not stream.disposition & pictures]
    if not found:
        kinds = sorted({stream.type for stream in container.streams}) or ["no"]
        what = "only an attached picture" if videos else f"only {', '.join(kinds)} streams"
        raise FrameError("no_video", f"{path.name} has {what}")
    return found


def first_decodable(path: Path, read: Callable[[InputContainer, int], FrameBatch]) -> FrameBatch:
    """Read the first video stream that gives frames.

    Args:
        path: The file.
        read: Reads the stream of the given index from a container that was just opened; raises
            ``NothingDecodedError`` where it gives no frame at all.

    Raises:
        FrameError: Why no stream gives the wanted frames.
    """
    failures: list[NothingDecodedError] = []
    while True:
        with opened(path) as container:
            indices = video_streams(container, path)
            try:
                return read(container, indices[len(failures)])
            except NothingDecodedError as error:
                failures.append(error)
            except FrameError as error:  # of random bytes, which encrypted ones are, some look like a picture
                if error.reason == "corrupt" and has_encrypted_video(path):
                    raise FrameError("encrypted", f"the video track of {path.name} is encrypted") from error
                raise
        if len(failures) == len(indices):
            break
    if has_encrypted_video(path):
        raise FrameError("encrypted", f"the video track of {path.name} is encrypted") from failures[0]
    raise FrameError(failures[0].reason, failures[0].detail) from failures[0]


def prepare_stream(container: InputContainer, index: int) -> VideoStream:
    """The stream, set up for decoding in this thread, with all others discarded.

    Raises:
        FrameError: ``unsupported`` or ``too_large``.
    """
    stream = container.streams[index]
    if not isinstance(stream, VideoStream):
        raise FrameError("no_video", f"stream {index} is {stream.type}")
    if getattr(stream, "codec_context", None) is None:
        raise NothingDecodedError("unsupported", f"there is no decoder for stream {index}")
    for other in container.streams:
        if other.index != index:
            other.discard = Discard.all
    if codec_name(stream) == "hevc":  # this decoder tells about damaged slices only when it must fail on them
        stream.codec_context.options = {"err_detect": "explode"}
    stream.codec_context.thread_type = "NONE"
    stream.codec_context.thread_count = 1
    if stream.codec_context.width * stream.codec_context.height > MAX_PIXELS:
        raise FrameError(
            "too_large", f"frames of {stream.codec_context.width}×{stream.codec_context.height} pixels are not decoded"
        )
    return stream


class PacketReader:
    """The packets of one stream that hold data, in decoding order.

    Attributes:
        damaged: After the iteration, whether reading ended with an error, or a packet was cut short.
    """

    def __init__(self, container: InputContainer, stream: VideoStream) -> None:
        self._container = container
        self._stream = stream
        self.damaged = False
        self.count = 0

    def __iter__(self) -> Iterator[VideoPacket]:
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    self.count += 1
                    self.damaged = self.damaged or packet.is_corrupt
                    yield packet
        except MemoryError:
            raise
        except (av.error.FFmpegError, OSError):
            self.damaged = True
        except IndexError:  # PyAV, after the last packet, when a stream turned up in the middle of the file
            return

    @property
    def truncated(self) -> bool:
        """Whether the file holds less than it declares."""
        mp4 = "mp4" in self._container.format.name.split(",")
        return self.damaged or (mp4 and self._stream.frames > self.count)


def decode(stream: VideoStream, packets: Iterable[VideoPacket]) -> Iterator[tuple[list[VideoFrame], str | None]]:
    """Decode packets and then what the decoder still holds.

    Yields:
        For each packet, and once more for the end: the frames that came out, and FFmpeg's words for an error.
    """
    for packet in chain(packets, (None,)):
        yield decode_one(stream, packet)


def decode_one(stream: VideoStream, packet: VideoPacket | None) -> tuple[list[VideoFrame], str | None]:
    """Give a decoder one packet, or None for the end; the frames that come out, and FFmpeg's words for an error."""
    try:
        return stream.codec_context.decode(packet), None
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        return [], explain(error)


def seconds(ticks: Sequence[int], time_base: Fraction) -> np.ndarray:
    """Times in seconds, float64 ``[n]``, each the nearest to its exact value."""
    return np.array([float(tick * time_base) for tick in ticks], dtype=np.float64)


def time_base_of(stream: VideoStream) -> Fraction:
    """Seconds in a tick of the stream's clock."""
    return stream.time_base or Fraction(1, 90_000)


def codec_name(stream: VideoStream) -> str:
    """Name of the codec, whichever decoder serves it (``av1``, not ``libdav1d``)."""
    return stream.codec_context.codec.canonical_name


def upright_rgb(frames: list[VideoFrame]) -> np.ndarray:
    """Frames as upright RGB.

    Args:
        frames: Decoded frames of one size.

    Returns:
        uint8 ``[n, h, w, 3]``.

    Raises:
        FrameError: ``unsupported`` when the frames differ in size, or their pixels cannot be converted.
    """
    sizes = sorted({(frame.width, frame.height) for frame in frames})
    if len(sizes) > 1:
        described = ", ".join(f"{width}×{height}" for width, height in sizes)
        raise FrameError("unsupported", f"the picture size changes within the video: {described}")
    reformatter = VideoReformatter()
    pictures: np.ndarray | None = None
    for position, frame in enumerate(frames):
        if pictures is not None and frame is frames[position - 1]:
            pictures[position] = pictures[position - 1]
            continue
        try:
            converted = reformatter.reformat(frame, format="rgb24", threads=1)
        except av.error.FFmpegError as error:
            detail = f"pixels of format {frame.format.name} cannot be converted: {explain(error)}"
            raise FrameError("unsupported", detail) from error
        upright = _turn(_pixels(converted), _display_matrix(frame))
        if pictures is None:
            pictures = np.empty((len(frames), *upright.shape), dtype=np.uint8)
        elif upright.shape != pictures.shape[1:]:
            raise FrameError("unsupported", "the display rotation changes within the video")
        pictures[position] = upright
    if pictures is None:
        raise ValueError("frames: expected at least one")
    return pictures


def _pixels(frame: VideoFrame) -> np.ndarray:
    """uint8 ``[h, w, 3]`` over the memory of an RGB frame, whose lines may be longer than the picture."""
    plane: Any = frame.planes[0]
    return np.ndarray((frame.height, frame.width, 3), np.uint8, buffer=plane, strides=(plane.line_size, 3, 1))


def _display_matrix(frame: VideoFrame) -> np.ndarray | None:
    """The 3×3 display matrix (first two columns 16.16 fixed point) of a frame, None where there is none."""
    side_data: Any = frame.side_data.get("DISPLAYMATRIX")
    return None if side_data is None else np.frombuffer(bytes(side_data), dtype=np.int32).reshape(3, 3)


def _turn(picture: np.ndarray, matrix: np.ndarray | None) -> np.ndarray:
    """Apply a display matrix: (x, y) is shown at (a·x + c·y, b·x + d·y), rounded to the nearest quarter turn."""
    if matrix is None:
        return picture
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    if abs(int(b)) > abs(int(a)):
        picture = picture.transpose(1, 0, 2)
        mirror_x, mirror_y = c < 0, b < 0
    else:
        mirror_x, mirror_y = a < 0, d < 0
    return picture[:: -1 if mirror_y else 1, :: -1 if mirror_x else 1]
