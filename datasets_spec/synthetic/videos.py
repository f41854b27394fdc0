"""Encoding of the made-up videos: H.264 and HEVC in mp4, some turned, some with sound."""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np
from av.container import OutputContainer
from av.video.stream import VideoStream
from PIL import Image

from datasets_spec.synthetic.latent import MOTIONS, Catalogue
from datasets_spec.synthetic.pictures import Scene

CYCLE_SECONDS = 5.0
SOUND_RATE = 16_000
Encoder = Literal["libx264", "libx265"]
_ENCODER_OPTIONS: Mapping[Encoder, Mapping[str, str]] = {
    "libx264": {"preset": "veryfast", "crf": "27"},
    # log-level=none keeps x265 quiet on stderr; one pool-less frame thread makes its output reproducible and cheap.
    "libx265": {"preset": "superfast", "crf": "29", "x265-params": "log-level=none:pools=none:frame-threads=1"},
}


@dataclass(frozen=True)
class Clip:
    """How one item is filmed.

    Attributes:
        encoder: "libx264" or "libx265".
        seconds: Length; the number of frames is seconds × fps, at least 2.
        fps: Frames a second.
        width: Displayed width in pixels (even).
        height: Displayed height in pixels (even).
        rotation: Counter-clockwise turn in degrees that a player applies to the stored frames (0, 90, 180, 270).
        sound: Whether a quiet tone is stored next to the pictures.
        keyframe_every: Longest distance of key frames, None for the encoder's default.
    """

    encoder: Encoder
    seconds: float
    fps: int
    width: int
    height: int
    rotation: int
    sound: bool
    keyframe_every: int | None


def draw_clips(items: int, rng: np.random.Generator) -> list[Clip]:
    """Draw how each item is filmed: most 1-8 s, some under 1 s, a few 15-30 s; 60 % H.264; one in twelve turned."""
    clips: list[Clip] = []
    for _ in range(items):
        kind = rng.random()
        if kind < 0.05:
            seconds = float(rng.uniform(15.0, 30.0))
        elif kind < 0.12:
            seconds = float(rng.uniform(0.5, 1.0))
        else:
            seconds = float(np.exp(rng.uniform(np.log(1.0), np.log(8.0))))
        width, height = (128, 228) if rng.random() < 0.7 else (228, 128)
        clips.append(
            Clip(
                encoder="libx264" if rng.random() < 0.6 else "libx265",
                seconds=seconds,
                fps=int(rng.choice([12, 15])),
                width=width,
                height=height,
                rotation=int(rng.choice([90, 180, 270])) if rng.random() < 1 / 12 else 0,
                sound=bool(rng.random() < 0.25),
                keyframe_every=int(rng.choice([12, 30])) if rng.random() < 0.3 else None,
            )
        )
    return clips


def scene_of(catalogue: Catalogue, row: int, clip: Clip) -> Scene:
    """The moving picture of the item in this row."""
    topic, motion = int(catalogue.topic[row]), int(catalogue.motion[row])
    return Scene(topic, motion, catalogue.traits[row], width=clip.width, height=clip.height)


def cover_of(catalogue: Catalogue, row: int, clip: Clip) -> Scene:
    """The scene of the item's cover: its look without its motion."""
    still = MOTIONS.index("still")
    return Scene(int(catalogue.topic[row]), still, catalogue.traits[row], width=clip.width, height=clip.height)


def phase_at(second: float, duration: float) -> float:
    """Phase of the motion: cycles of at most CYCLE_SECONDS, one of which is centred on the middle of the video."""
    cycle = min(duration, CYCLE_SECONDS)
    return ((second - duration / 2) / cycle + 0.5) % 1.0


def encode_cover(scene: Scene) -> bytes:
    """One picture of a scene, as JPEG."""
    buffer = io.BytesIO()
    Image.fromarray(scene.frame(0.5)).save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def encode_video(path: Path, scene: Scene, clip: Clip, *, index_first: bool = False) -> None:
    """Write one mp4.

    Args:
        path: File to write.
        scene: What is seen.
        clip: How it is filmed.
        index_first: Put the index before the pictures (a cut file can then still be opened).
    """
    count = max(2, round(clip.seconds * clip.fps))
    with av.open(str(path), "w", format="mp4", options=_mux_options(index_first=index_first)) as container:
        stream = _add_pictures(container, clip)
        if clip.sound:
            _mux_tone(container, clip.seconds)
        for index in range(count):
            picture = scene.frame(phase_at((index + 0.5) / clip.fps, count / clip.fps))
            stored = np.ascontiguousarray(np.rot90(picture, k=-clip.rotation // 90))
            frame = av.VideoFrame.from_ndarray(stored, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _add_pictures(container: OutputContainer, clip: Clip) -> VideoStream:
    options = dict(_ENCODER_OPTIONS[clip.encoder])
    if clip.keyframe_every is not None:
        options["g"] = str(clip.keyframe_every)
    stream: VideoStream = container.add_stream(clip.encoder, rate=clip.fps, options=options)
    turned = clip.rotation in (90, 270)
    stream.width, stream.height = (clip.height, clip.width) if turned else (clip.width, clip.height)
    stream.pix_fmt = "yuv420p"
    stream.codec_context.thread_count = 1
    if clip.rotation:
        stream.set_display_rotation(clip.rotation)
    return stream


def encode_sound_only(path: Path, seconds: float) -> None:
    """Write an mp4 that has sound and no pictures."""
    with av.open(str(path), "w", format="mp4", options=_mux_options(index_first=False)) as container:
        _mux_tone(container, seconds)


def _mux_options(*, index_first: bool) -> dict[str, str]:
    return {"fflags": "+bitexact", **({"movflags": "+faststart"} if index_first else {})}


def _mux_tone(container: OutputContainer, seconds: float) -> None:
    stream = container.add_stream("aac", rate=SOUND_RATE, layout="mono")
    times = np.arange(int(seconds * SOUND_RATE), dtype=np.float32) / SOUND_RATE
    frame = av.AudioFrame.from_ndarray(0.05 * np.sin(2 * np.pi * 330.0 * times)[None, :], format="fltp", layout="mono")
    frame.sample_rate = SOUND_RATE
    frame.pts = 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
