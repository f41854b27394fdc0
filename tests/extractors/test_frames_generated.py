"""Clips made here, whose frames carry their number as a pattern of bright and dark squares: what is on screen is read
back from the pixels, and compared with arithmetic and with a full decode."""

from fractions import Fraction

import av
import numpy as np
import pytest

from extractors.decoders import scan
from extractors.frames import FrameError, sample_frames

BITS = 12
WIDTH, HEIGHT = 96, 64
OPEN_GOP = {"x264-params": "open-gop=1:keyint=24:min-keyint=24:scenecut=0:bframes=3:b-adapt=0"}
X265 = "log-level=none:pools=none:frame-threads=1"


def picture(number):
    """A moving texture with the number in two rows of squares, 16 pixels each."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    shade = (96 + 48 * np.sin((x + 2 * number) / 7) + 32 * np.cos((y - number) / 5)).astype(np.uint8)
    for bit in range(BITS):
        row, column = divmod(bit, 6)
        shade[16 * row : 16 * row + 16, 16 * column : 16 * column + 16] = 235 if number >> bit & 1 else 20
    return np.repeat(shade[..., None], 3, axis=2)


def number(frame):
    """The number that a decoded frame carries."""
    centres = [frame[16 * (bit // 6) + 8, 16 * (bit % 6) + 8].mean() > 128 for bit in range(BITS)]
    return sum(1 << bit for bit, bright in enumerate(centres) if bright)


def write(path, numbers, *, codec="libx264", options=None, fps=30, stamps=None, muxer=None, before=None):
    """Encode pictures; ``stamps`` are presentation times in ms; ``before`` adds a stream and returns what fills it."""
    with av.open(str(path), "w", options=muxer or {}) as container:
        fill = before(container) if before is not None else None
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        if stamps is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if fill is not None:
            fill()
        for position, value in enumerate(numbers):
            frame = av.VideoFrame.from_ndarray(picture(value), format="rgb24")
            if stamps is not None:
                frame.pts, frame.time_base = stamps[position], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def numbers_of(batch):
    return [number(frame) for frame in batch.data]


def same(one, other):
    np.testing.assert_array_equal(one.data, other.data)
    np.testing.assert_array_equal(one.pts_seconds, other.pts_seconds)
    assert (one.n_distinct, one.duration_seconds, one.policy) == (
        other.n_distinct,
        other.duration_seconds,
        other.policy,
    )
    return True


# 240 frames at 30 per second: centre 4.0 s, targets 2 … 6 s, frames 60 … 180
LONG = list(range(240))
EXPECTED = [60, 90, 120, 150, 180]

FORMATS = {
    "h264-bframes.mp4": ("libx264", {"x264-params": "keyint=250:bframes=3:b-adapt=0"}, "planned"),
    "h264-short-gop.mkv": ("libx264", {"x264-params": "keyint=12:bframes=2:b-adapt=0"}, "planned"),
    "h264-no-bframes.mp4": ("libx264", {"x264-params": "bframes=0:keyint=30"}, "planned"),
    "h264-open-gop.mp4": ("libx264", OPEN_GOP, "planned"),
    "h264-open-gop.mkv": ("libx264", OPEN_GOP, "planned"),
    "h264-open-gop.ts": ("libx264", OPEN_GOP, "planned"),
    "h264-pyramid.flv": ("libx264", {"x264-params": "bframes=7:b-pyramid=normal:keyint=60"}, "planned"),
    "h264-intra-refresh.mp4": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}, "planned"),
    "h264-intra-refresh.mkv": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}, "planned"),
    "h264-intra-refresh.ts": ("libx264", {"x264-params": "intra-refresh=1:keyint=40:bframes=0"}, "planned"),
    "hevc-open-gop.mp4": ("libx265", {"x265-params": f"{X265}:keyint=24:open-gop=1"}, "planned"),
    "hevc-layers.mp4": (
        "libx265",
        {"x265-params": f"{X265}:keyint=48:temporal-layers=3:b-adapt=0:bframes=3"},
        "planned",
    ),
    "hevc.ts": ("libx265", {"x265-params": f"{X265}:keyint=30:open-gop=0"}, "planned"),
    "vp8.webm": ("libvpx", {"auto-alt-ref": "1", "lag-in-frames": "16", "g": "60", "deadline": "realtime"}, "planned"),
    "vp9.webm": ("libvpx-vp9", {"lag-in-frames": "16", "g": "60", "deadline": "realtime", "cpu-used": "8"}, "planned"),
    "av1.mp4": ("libsvtav1", {"preset": "13", "g": "60", "svtav1-params": "lp=1"}, "planned"),
    "mpeg2-bframes.ts": ("mpeg2video", {"bf": "2", "g": "15"}, "planned"),
    "mpeg4-bframes.mp4": ("mpeg4", {"bf": "2", "g": "30"}, "planned"),
    "mpeg4-plain.avi": ("mpeg4", {"g": "30"}, "planned"),
    "mpeg4-bframes.avi": ("mpeg4", {"bf": "2", "g": "30"}, "planned:sequential"),
    "h264-bframes.avi": ("libx264", {"x264-params": "keyint=60:bframes=3:b-adapt=0"}, "planned:sequential"),
    "h264-raw.h264": ("libx264", {"x264-params": "keyint=60:bframes=3:b-adapt=0"}, "planned:sequential"),
}


@pytest.mark.parametrize("name", FORMATS)
def test_every_kind_of_stream_gives_the_frames_on_screen(tmp_path, name):
    codec, options, decoder = FORMATS[name]
    path = write(
        tmp_path / name, LONG, codec=codec, options={"preset": "ultrafast", **options} if "x26" in codec else options
    )
    batch = sample_frames(path)
    assert numbers_of(batch) == EXPECTED
    assert (batch.policy, batch.n_distinct, batch.decoder) == ("centre", 5, decoder)
    assert same(batch, sample_frames(path, decoder="sequential"))
    np.testing.assert_allclose(np.diff(batch.pts_seconds), 1.0, atol=0.002)


@pytest.mark.parametrize(
    ("n", "fps", "expected"),
    [(1, 1.0, [120]), (2, 30.0, [119, 120]), (8, 2.0, [67, 82, 97, 112, 127, 142, 157, 172]), (9, 1.0, None)],
)
def test_other_counts_and_rates(tmp_path, n, fps, expected):
    path = write(tmp_path / "clip.mp4", LONG, options=OPEN_GOP)
    batch = sample_frames(path, n=n, fps=fps)
    # 9 frames at 1 per second do not fit into 8 s: nine parts of 240/9 frames, seen in their middles
    assert numbers_of(batch) == (expected or [int(240 * (2 * j + 1) / 18) for j in range(9)])
    assert same(batch, sample_frames(path, n=n, fps=fps, decoder="sequential"))


def test_much_less_is_decoded_than_the_whole(tmp_path):
    closed = write(tmp_path / "closed.mp4", LONG, options={"x264-params": "keyint=30:min-keyint=30:scenecut=0"})
    # targets 60, 90, … are the keyframes themselves: nothing else is decoded
    assert sample_frames(closed).decoded == 5
    pairs = write(
        tmp_path / "pairs.mp4",
        LONG,
        options={"x264-params": "keyint=240:min-keyint=240:scenecut=0:bframes=1:b-adapt=0:b-pyramid=none"},
    )
    # up to frame 180 in one run; every second picture is a B picture that nothing refers to
    assert sample_frames(pairs).decoded < 100


@pytest.mark.parametrize("count", [1, 2, 4])
def test_fewer_frames_than_are_asked_for(tmp_path, count):
    path = write(tmp_path / "clip.mp4", range(count))
    batch = sample_frames(path)
    assert numbers_of(batch) == [int(count * (2 * j + 1) / 10) for j in range(5)]
    assert (batch.n_distinct, batch.policy) == (count, "short")
    assert same(batch, sample_frames(path, decoder="sequential"))


@pytest.mark.parametrize("name", ["vfr.mp4", "vfr.mkv"])
def test_variable_frame_rate(tmp_path, name):
    # 4 s at 25 per second, then 4 s at 5 per second: frame 100 + k is on screen from 4 s + k/5 s
    stamps = [40 * i for i in range(100)] + [4000 + 200 * i for i in range(20)]
    path = write(tmp_path / name, range(120), stamps=stamps, options={"x264-params": "keyint=24"})
    batch = sample_frames(path)
    half = batch.duration_seconds / 2
    expected = [max(i for i in range(120) if stamps[i] / 1000 <= half + j - 2 + 1e-9) for j in range(5)]
    assert numbers_of(batch) == expected
    assert same(batch, sample_frames(path, decoder="sequential"))


def test_a_start_that_is_not_zero(tmp_path):
    path = write(tmp_path / "late.mkv", LONG, fps=25, stamps=[7000 + 40 * i for i in range(240)])
    batch = sample_frames(path)
    # 240 frames of 40 ms from 7.0 s: centre 11.8 s, frame 120
    assert numbers_of(batch) == [70, 95, 120, 145, 170]
    np.testing.assert_allclose(batch.pts_seconds, [9.8, 10.8, 11.8, 12.8, 13.8], atol=1e-9)


@pytest.mark.parametrize(("degrees", "turns"), [(90, 1), (180, 2), (-90, -1)])
def test_display_rotation_is_applied(tmp_path, degrees, turns):
    plain = sample_frames(write(tmp_path / "plain.mp4", range(10)))
    path = tmp_path / "turned.mp4"
    with av.open(str(tmp_path / "plain.mp4")) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(degrees)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    batch = sample_frames(path)
    np.testing.assert_array_equal(batch.data, np.rot90(plain.data, turns, axes=(1, 2)))
    assert batch.rotation == degrees % 360
    assert same(batch, sample_frames(path, decoder="sequential"))


def remux(source, path, *, skip=0, shift=0, muxer=None):
    """Copy packets without decoding, from packet ``skip`` on, ``shift`` ticks earlier."""
    with av.open(str(source)) as container, av.open(str(path), "w", options=muxer or {}) as target:
        stream = target.add_stream_from_template(container.streams.video[0])
        for position, packet in enumerate(container.demux(container.streams.video[0])):
            if packet.size and position >= skip:
                packet.pts, packet.dts, packet.stream = packet.pts - shift, packet.dts - shift, stream
                target.mux(packet)
    return path


def test_an_edit_list_that_hides_the_first_pictures(tmp_path):
    whole = write(tmp_path / "whole.mp4", LONG, options={"x264-params": "keyint=60:scenecut=0"})
    with av.open(str(whole)) as container:
        tick = container.streams.video[0].time_base
    shift = int(1 / tick)  # the file begins to show one second into the first group of pictures
    path = remux(whole, tmp_path / "trimmed.mp4", shift=shift, muxer={"avoid_negative_ts": "disabled"})
    batch = sample_frames(path)
    # frames 30 … 239 are shown: 7 s, centre frame 30 + 105
    assert numbers_of(batch) == [75, 105, 135, 165, 195]
    assert batch.duration_seconds == 7.0
    assert same(batch, sample_frames(path, decoder="sequential"))


def test_a_recording_that_begins_between_keyframes(tmp_path):
    whole = write(tmp_path / "whole.mp4", LONG, options={"x264-params": "keyint=60:scenecut=0:bframes=0"})
    path = remux(whole, tmp_path / "cut.ts", skip=20)
    batch = sample_frames(path)
    assert batch.decoder == "planned:sequential"
    assert same(batch, sample_frames(path, decoder="sequential"))
    # nothing can be shown before the keyframe 60: frames 60 … 239 last 6 s
    assert numbers_of(batch) == [90, 120, 150, 180, 210]


def test_sound_that_lasts_longer_plays_no_part(tmp_path):
    def sound(container):
        stream = container.add_stream("aac", rate=16000)

        def fill():
            for _ in range(300):
                frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
                frame.sample_rate = 16000
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))

        return fill

    path = write(tmp_path / "clip.mkv", LONG, before=sound)
    with av.open(str(path)) as container:
        assert container.duration > 19_000_000
    assert numbers_of(sample_frames(path)) == EXPECTED


def test_packets_that_do_not_fit_into_memory_are_read_again(tmp_path, monkeypatch):
    path = write(tmp_path / "clip.mkv", LONG, options=OPEN_GOP)
    kept = sample_frames(path)
    monkeypatch.setattr(scan, "KEEP_BYTES", 1000)
    again = sample_frames(path)
    assert same(kept, again)
    assert (again.decoder, again.decoded) == ("planned", kept.decoded)


def test_a_second_video_stream_serves_when_the_first_gives_nothing(tmp_path):
    path = write(tmp_path / "good.mkv", LONG)
    empty = tmp_path / "two.mkv"
    with av.open(str(path)) as source, av.open(str(empty), "w") as target:
        broken = target.add_stream_from_template(source.streams.video[0])
        sound = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                noise = av.Packet(bytes(40))
                noise.pts, noise.dts, noise.time_base, noise.stream = packet.pts, packet.dts, packet.time_base, broken
                target.mux(noise)
                packet.stream = sound
                target.mux(packet)
    batch = sample_frames(empty)
    assert numbers_of(batch) == EXPECTED
    assert same(batch, sample_frames(empty, decoder="sequential"))


def test_a_file_cut_short_is_sampled_for_what_is_there(tmp_path):
    path = write(tmp_path / "clip.mp4", LONG, muxer={"movflags": "+faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    batch = sample_frames(path)
    assert batch.truncated
    assert batch.duration_seconds < 8
    found = numbers_of(batch)
    assert found == [round(stamp * 30) for stamp in batch.pts_seconds]
    assert same(batch, sample_frames(path, decoder="sequential"))


def test_damaged_bytes_never_give_other_frames_than_a_full_decode(tmp_path):
    clip = write(tmp_path / "clip.mp4", range(180), options=OPEN_GOP).read_bytes()
    start = clip.index(b"mdat") + 4
    end = clip.index(b"moov") - 4 if clip.index(b"moov") > start else len(clip)
    outcomes = set()
    for seed in range(24):
        rng = np.random.default_rng(seed)
        damaged = bytearray(clip)
        for position in rng.integers(start, end, size=1 + seed % 4):
            damaged[position] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{seed}.mp4"
        path.write_bytes(damaged)
        try:
            batch = sample_frames(path)
        except FrameError as error:
            outcomes.add(error.reason)
            with pytest.raises(FrameError, match=error.reason):
                sample_frames(path, decoder="sequential")
        else:
            outcomes.add("frames")
            try:
                whole = sample_frames(path, decoder="sequential")
            except FrameError as error:
                outcomes.add(f"only whole: {error.reason}")  # it met the damage beside the wanted frames
            else:
                assert same(batch, whole)
    assert outcomes >= {"frames", "corrupt"}
    assert outcomes <= {"frames", "corrupt", "only whole: corrupt"}


def test_encrypted(tmp_path):
    keys = {"encryption_scheme": "cenc-aes-ctr", "encryption_key": "7" * 32, "encryption_kid": "a" * 32}
    path = write(tmp_path / "clip.mp4", LONG, muxer=keys)
    with pytest.raises(FrameError, match="is encrypted") as caught:
        sample_frames(path)
    assert caught.value.reason == "encrypted"


def test_cover_art_is_no_video(tmp_path):
    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as container:
        cover = container.add_stream("mjpeg", rate=1)
        cover.width, cover.height, cover.pix_fmt = WIDTH, HEIGHT, "yuvj420p"
        cover.disposition = av.stream.Disposition.attached_pic
        stream = container.add_stream("aac", rate=16000)
        container.mux(cover.encode(av.VideoFrame.from_ndarray(picture(1), format="rgb24")))
        container.mux(cover.encode(None))
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(FrameError, match="only an attached picture") as caught:
        sample_frames(path)
    assert caught.value.reason == "no_video"


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (None, "missing_file", "does not exist"),
        (b"", "unreadable", "is empty"),
        (b"<!DOCTYPE html><html><body>Not found</body></html>" * 20, "unreadable", "no video"),
        (bytes(range(256)) * 40, "unreadable", "no video"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:8\n#EXTINF:8,\nother.ts\n#EXT-X-ENDLIST\n", "unreadable", "no video"),
        (b"ffconcat version 1.0\nfile other.ts\n", "unreadable", "no video"),
    ],
)
def test_what_is_no_video(tmp_path, content, reason, words):
    write(tmp_path / "other.ts", range(30))
    path = tmp_path / "clip.mp4"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(FrameError, match=words) as caught:
        sample_frames(path)
    assert caught.value.reason == reason
    with pytest.raises(FrameError, match="regular file"):
        sample_frames(tmp_path)


def test_an_unknown_decoder_is_a_wrong_call(tmp_path):
    with pytest.raises(ValueError, match=r"decord, torchcodec, got 'planed'; did you mean planned\?"):
        sample_frames(tmp_path / "clip.mp4", decoder="planed")
