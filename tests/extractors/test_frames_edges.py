"""Files that are hard to read: whatever they are, the default decoder gives what a full decode with PyAV shows."""

import contextlib
import io
import struct
from bisect import bisect_right
from fractions import Fraction

import av
import av.logging
import numpy as np
import pytest

from extractors.frames import FrameError, sample_frames

WIDTH, HEIGHT = 64, 48
X264 = {"preset": "ultrafast", "x264-params": "keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"}


@pytest.fixture(autouse=True)
def quiet():
    av.logging.restore_default_callback()
    av.logging.set_libav_level(av.logging.PANIC)


def pictures(count, width=WIDTH, height=HEIGHT, seed=0):
    """Moving stripes with noise: no two are alike."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    for number in range(count):
        shade = 120 + 60 * np.sin((x + 3 * number) / 6) + 40 * np.cos((y - 2 * number) / 4)
        noise = rng.integers(-6, 7, (height, width, 3))
        yield (shade[..., None] + noise).clip(0, 255).astype(np.uint8)


def write(target, count=150, *, codec="libx264", options=X264, pixels="yuv420p", size=(WIDTH, HEIGHT), **how):
    """Encode; ``stamps`` are times in milliseconds, ``muxer`` its options, ``format`` that of a nameless target."""
    stamps = how.get("stamps")
    with av.open(target, "w", options=how.get("muxer", {}), format=how.get("format")) as container:
        stream = container.add_stream(codec, rate=30, options=options)
        stream.width, stream.height, stream.pix_fmt = *size, pixels
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for position, picture in enumerate(pictures(count, *size)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[position], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def full_decode(path, n=5, fps=1):
    """Decode every frame in order; then take those on screen at the targets."""
    with av.open(str(path)) as container:
        stream = next(
            one for one in container.streams.video if not one.disposition & av.stream.Disposition.attached_pic
        )
        stream.thread_type = "NONE"
        base = stream.time_base
        frames = [
            (frame.pts, frame.duration, frame.to_ndarray(format="rgb24", threads=1))
            for frame in container.decode(stream)
        ]
    stamps = [pts * base for pts, _, _ in frames]
    span = stamps[-1] + frames[-1][1] * base - stamps[0]
    if span < Fraction(n, fps):
        targets = [stamps[0] + span * Fraction(2 * j + 1, 2 * n) for j in range(n)]
    else:
        targets = [stamps[0] + span / 2 + Fraction(2 * j - n + 1, 2 * fps) for j in range(n)]
    taken = [max(bisect_right(stamps, target) - 1, 0) for target in targets]
    return np.stack([frames[at][2] for at in taken]), [float(stamps[at]) for at in taken]


def assert_exact(path, n=5, fps=1):
    batch = sample_frames(path, n=n, fps=fps)
    data, stamps = full_decode(path, n, fps)
    np.testing.assert_array_equal(batch.data, data)
    assert batch.pts_seconds.tolist() == stamps
    return batch


X265 = {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1:keyint=30:bframes=4"}
PQ = {
    "preset": "ultrafast",
    "x265-params": X265["x265-params"] + ":colorprim=bt2020:transfer=smpte2084:colormatrix=bt2020nc",
}
VP9 = {"deadline": "realtime", "cpu-used": "8", "g": "40"}
AV1 = {"preset": "12", "g": "40", "svtav1-params": "lp=1"}
FILES = {
    "ten_bits.mp4": {"codec": "libx264", "pixels": "yuv420p10le"},
    "ten_bits_hdr.mp4": {"codec": "libx265", "options": PQ, "pixels": "yuv420p10le"},
    "odd_size.mp4": {"pixels": "yuv444p", "size": (77, 51)},
    "odd_size.webm": {"codec": "libvpx-vp9", "options": VP9, "size": (77, 51)},
    "narrow.mp4": {"size": (16, 28)},
    "fragmented.mp4": {"muxer": {"movflags": "+frag_keyframe+empty_moov+default_base_moof"}},
    "moov_first.mp4": {"muxer": {"movflags": "+faststart"}},
    "negative_offsets.mp4": {"muxer": {"movflags": "+negative_cts_offsets"}},
    "no_edit_list.mov": {"muxer": {"use_editlist": "0"}},
    "av1.mp4": {"codec": "libsvtav1", "options": AV1},
    "hevc.mp4": {"codec": "libx265", "options": X265},
    "drops.mp4": {"stamps": [33 * i + 400 * (i // 37) for i in range(150)]},
    "uneven.mp4": {"stamps": np.cumsum(np.random.default_rng(3).integers(8, 160, 150)).tolist()},
    "late.mp4": {"stamps": [5000 + 40 * i for i in range(150)]},
    "transport.ts": {},
}


@pytest.mark.parametrize("name", FILES)
def test_files_that_other_readers_trip_over(tmp_path, name):
    write(str(tmp_path / name), **FILES[name])
    assert assert_exact(tmp_path / name).decoder.startswith("planned")
    assert_exact(tmp_path / name, n=7, fps=3)


@pytest.mark.parametrize("seed", range(8))
def test_any_structure_of_references(tmp_path, seed):
    rng = np.random.default_rng(seed)
    keep, gop = int(rng.integers(1, 6)), int(rng.integers(2, 90))
    params = (
        f"keyint={gop}:bframes={rng.integers(0, 6)}:b-pyramid={rng.choice(['none', 'strict', 'normal'])}:ref={keep}"
        f":open-gop={rng.integers(2)}:slices={rng.integers(1, 4)}:aud={rng.integers(2)}"
    )
    path = tmp_path / str(rng.choice(["clip.mp4", "clip.mkv", "clip.ts"]))
    count = int(rng.integers(3, 260))
    write(str(path), count, options={"preset": "superfast", "x264-params": params})
    for n, fps in ((5, 1), (3, 2), (16, 10)):
        assert_exact(path, n, fps)


def test_a_file_that_does_not_say_how_long_it_is(tmp_path):
    class Pipe(io.RawIOBase):
        """Takes bytes and cannot go back to fill in a header."""

        data = b""

        def writable(self):
            return True

        def write(self, chunk):
            self.data += bytes(chunk)
            return len(chunk)

    pipe = Pipe()
    write(pipe, format="matroska")
    path = tmp_path / "streamed.mkv"
    path.write_bytes(pipe.data)
    with av.open(str(path)) as container:
        assert container.streams.video[0].duration is None
        assert not container.duration
    assert assert_exact(path).duration_seconds == pytest.approx(5.0, abs=0.002)


MATRICES = {
    "mirrored": ((-1, 0, 0, 1), lambda data: data[:, :, ::-1]),
    "upside down": ((1, 0, 0, -1), lambda data: data[:, ::-1]),
    "half a turn": ((-1, 0, 0, -1), lambda data: data[:, ::-1, ::-1]),
    "transposed": ((0, 1, 1, 0), lambda data: data.transpose(0, 2, 1, 3)),
    "quarter turn": ((0, 1, -1, 0), lambda data: np.rot90(data, -1, axes=(1, 2))),
    "three quarters": ((0, -1, 1, 0), lambda data: np.rot90(data, 1, axes=(1, 2))),
}


@pytest.mark.parametrize("name", MATRICES)
def test_every_display_matrix(tmp_path, name):
    (a, b, c, d), turn = MATRICES[name]
    plain, turned = tmp_path / "plain.mp4", tmp_path / "turned.mp4"
    write(str(plain), 30)
    content = plain.read_bytes()
    identity = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    at = content.index(identity, content.index(b"tkhd"))
    matrix = struct.pack(">9i", a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30)
    turned.write_bytes(content[:at] + matrix + content[at + len(matrix) :])
    for decoder in ("planned", "sequential"):
        expected = turn(sample_frames(plain, decoder=decoder).data)
        np.testing.assert_array_equal(sample_frames(turned, decoder=decoder).data, expected)


def remux(source, target, change, muxer=None):
    """Copy packets; ``change(position, packet)`` may alter each, and drops it by returning False."""
    with av.open(str(source)) as container, av.open(str(target), "w", options=muxer or {}) as copy:
        stream = copy.add_stream_from_template(container.streams.video[0])
        for position, packet in enumerate(container.demux(container.streams.video[0])):
            if packet.size and change(position, packet) is not False:
                packet.stream = stream
                copy.mux(packet)


def test_a_timestamp_that_occurs_twice(tmp_path):
    write(str(tmp_path / "plain.mkv"), options={"preset": "ultrafast", "x264-params": "keyint=30:bframes=0"})
    last = []

    def repeat(position, packet):
        if position == 75:  # the very frame at the centre
            packet.pts = packet.dts = last[-1]
        last.append(packet.pts)

    remux(tmp_path / "plain.mkv", tmp_path / "twice.mkv", repeat)
    assert assert_exact(tmp_path / "twice.mkv").decoder == "planned:sequential"


def test_timestamps_below_zero(tmp_path):
    write(str(tmp_path / "plain.mp4"))

    def earlier(_, packet):
        shift = round(Fraction(2) / packet.time_base)
        packet.pts, packet.dts = packet.pts - shift, packet.dts - shift

    remux(tmp_path / "plain.mp4", tmp_path / "early.ts", earlier, {"avoid_negative_ts": "disabled"})
    # 5 s from -2.0 s: centre 0.5 s
    assert assert_exact(tmp_path / "early.ts").pts_seconds.tolist() == [-1.5, -0.5, 0.5, 1.5, 2.5]
    remux(tmp_path / "plain.mp4", tmp_path / "early.mp4", earlier, {"avoid_negative_ts": "disabled"})
    # an MP4 file hides what lies before zero: 3 s are left, cut into five parts
    batch = assert_exact(tmp_path / "early.mp4")
    np.testing.assert_allclose(batch.pts_seconds, [0.3, 0.9, 1.5, 2.1, 2.7], atol=1e-4)


@pytest.mark.parametrize("lost", [33, 57, 93, 120, 135])
def test_a_lost_packet_changes_nothing_that_a_full_decode_does_not(tmp_path, lost):
    options = {"preset": "superfast", "x264-params": "keyint=48:scenecut=0:bframes=3:ref=3"}
    write(str(tmp_path / "plain.mkv"), 240, options=options)
    remux(tmp_path / "plain.mkv", tmp_path / "lost.mkv", lambda position, _: position != lost)
    assert outcome(tmp_path / "lost.mkv", "planned") == outcome(tmp_path / "lost.mkv", "sequential")


def test_a_cover_and_a_small_second_stream_play_no_part(tmp_path):
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = 32, 32, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        streams = [container.add_stream("libx264", rate=30, options=X264) for _ in range(2)]
        for stream, (width, height) in zip(streams, ((WIDTH, HEIGHT), (128, 96)), strict=True):
            stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        picture = av.VideoFrame.from_ndarray(next(pictures(1, 32, 32)), format="rgb24")
        container.mux(cover.encode(picture))
        container.mux(cover.encode(None))
        for stream in streams:
            for one in pictures(150, stream.width, stream.height):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(one, format="rgb24")))
            container.mux(stream.encode(None))
    assert assert_exact(path).data.shape == (5, HEIGHT, WIDTH, 3)  # the first, not the largest


def outcome(path, decoder):
    try:
        batch = sample_frames(path, decoder=decoder)
    except FrameError as error:
        return error.reason
    return batch.data.tobytes(), batch.pts_seconds.tolist(), batch.n_distinct, batch.duration_seconds


def cut(content, rng):
    return content[: int(rng.integers(len(content) // 3, len(content)))]


def flip(content, rng):
    damaged = bytearray(content)
    for position in rng.integers(0, len(content), size=int(rng.integers(1, 5))):
        damaged[position] ^= 1 << int(rng.integers(8))
    return bytes(damaged)


def hole(content, rng):
    start, length = int(rng.integers(len(content))), len(content) // 12
    return content[:start] + bytes(len(content[start : start + length])) + content[start + length :]


DAMAGED = {
    "moov_first.mp4": FILES["moov_first.mp4"],
    "fragmented.mp4": FILES["fragmented.mp4"],
    "hevc.mp4": FILES["hevc.mp4"],
    "av1.mp4": FILES["av1.mp4"],
    "vp9.webm": {"codec": "libvpx-vp9", "options": VP9},
    "transport.ts": {},
    "h264.mkv": {},
    "open_gop.mkv": {"options": {"preset": "ultrafast", "x264-params": X264["x264-params"] + ":open-gop=1"}},
    "av1.mkv": {"codec": "libsvtav1", "options": AV1},
    "mpeg4.mkv": {"codec": "mpeg4", "options": {"bf": "2", "g": "30"}},
}


def shown(path):
    """What FFmpeg shows, as far as it goes on: pixels by timestamp in milliseconds."""
    found = {}
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        for packet in container.demux(stream):
            with contextlib.suppress(av.error.FFmpegError):
                for frame in packet.decode():
                    found[round(1000 * frame.time)] = frame.to_ndarray(format="rgb24", threads=1).tobytes()
    return found


def frames_of(*files, found):
    """Whether each picture that was found is that of one of the files at its time."""
    data, stamps, *_ = found
    size = len(data) // len(stamps)
    pictures = [data[at : at + size] for at in range(0, len(data), size)]
    return all(
        picture in [file.get(round(1000 * stamp)) for file in files]
        for picture, stamp in zip(pictures, stamps, strict=True)
    )


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_end_as_in_a_full_decode(tmp_path, name):
    """The default decoder may give frames where the full decode refuses, having met the damage beside them."""
    write(str(tmp_path / name), 90, **DAMAGED[name])
    content = (tmp_path / name).read_bytes()
    seen = set()
    for seed in range(36):
        rng = np.random.default_rng(seed)
        path = tmp_path / f"{seed}_{name}"
        path.write_bytes((cut, flip, hole)[seed % 3](content, rng))
        found, whole = outcome(path, "planned"), outcome(path, "sequential")
        if found != whole:
            assert whole == "corrupt", f"seed {seed}"
            assert frames_of(shown(tmp_path / name), shown(path), found=found), f"seed {seed}"
        seen.add(found if isinstance(found, str) else "frames")
    assert "frames" in seen


@pytest.mark.parametrize("decoder", ["planned", "sequential"])
def test_damage_before_a_keyframe_does_not_touch_what_follows(tmp_path, decoder):
    """FFmpeg alone shows every picture from the damage to the end of the next group of pictures wrong."""
    write(str(tmp_path / "whole.mkv"))

    def zero(position, packet):
        if position == 95:  # the last before the keyframe at 3.2 s
            memory = memoryview(packet)
            memory[len(memory) // 3 :] = bytes(len(memory) - len(memory) // 3)

    remux(tmp_path / "whole.mkv", tmp_path / "hole.mkv", zero)
    batch = sample_frames(tmp_path / "hole.mkv", decoder=decoder)
    data, stamps = full_decode(tmp_path / "whole.mkv")
    assert batch.pts_seconds.tolist() == stamps
    np.testing.assert_array_equal(batch.data, data)
    concealed, _ = full_decode(tmp_path / "hole.mkv")
    assert [np.array_equal(*pair) for pair in zip(concealed, data, strict=True)] == [True, True, True, False, True]
