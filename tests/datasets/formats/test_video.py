"""Reading videos: frames by time, turned as a player shows them, whatever the file is like."""

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from path import Path

from datasets.formats import video as video_module
from datasets.formats.hdr import tone_mapped
from datasets.formats.video import Reading, nearest_to_ticks, open_video, read_video
from files.errors import InputError

HEIGHT, WIDTH = 48, 96


def moving(count, height=HEIGHT, width=WIDTH):
    """Frames of a random texture that passes by, with their number in binary as squares along the top."""
    texture = np.random.default_rng(0).integers(60, 200, (height // 4 + 1, width // 4 + count, 3), dtype=np.uint8)
    texture = np.kron(texture, np.ones((4, 4, 1), np.uint8))
    frames = [texture[:height, 2 * n : 2 * n + width].copy() for n in range(count)]
    for number, frame in enumerate(frames):
        for bit in range(8):
            frame[:12, 12 * bit : 12 * bit + 12] = 250 * (number >> bit & 1)
    return frames


def numbers(frames):
    """The numbers of frames of `moving`, from their pixels."""
    images = [frame.image() for frame in frames]
    return [sum((image[3:9, 12 * b + 3 : 12 * b + 9].mean() > 128) << b for b in range(8)) for image in images]


def read(file, fps=1000):
    reading = Reading()
    return list(read_video(open_video(file), fps, reading)), reading


@pytest.fixture(scope="module")
def clip(write_video, tmp_path_factory):
    """60 frames, 25 a second, with a key frame every 10."""
    return Path(write_video(Path(tmp_path_factory.mktemp("clip")) / "clip.mp4", moving(60), g=10, crf=10))


def test_all_frames_or_those_nearest_to_each_tick(clip):
    video = open_video(clip)
    assert (video.width, video.height, video.rate, video.seconds) == (WIDTH, HEIGHT, 25, 2.4)
    frames, reading = read(clip)
    assert numbers(frames) == list(range(60))
    assert reading.decoded == 60
    assert not reading.problems
    frames, _ = read(clip, fps=12.5)
    assert numbers(frames) == list(range(0, 60, 2))
    assert [frame.number for frame in frames] == list(range(30))
    frames, _ = read(clip, fps=10)
    assert numbers(frames)[:5] == [0, 2, 5, 7, 10]
    assert not any(frame.after_gap for frame in frames)


@given(
    st.lists(st.floats(0.001, 0.5), min_size=1, max_size=60).map(lambda steps: np.cumsum(steps) - steps[0]),
    st.floats(1, 60),
)
def test_ticks_take_each_frame_at_most_once_and_none_is_far(times, fps):
    chosen = list(nearest_to_ticks(((time, number) for number, time in enumerate(times)), fps))
    assert [tick for tick, _, _ in chosen] == sorted({tick for tick, _, _ in chosen})
    assert len({number for _, _, number in chosen}) == len(chosen)
    for tick, time, number in chosen:
        assert time == times[number]
        assert abs(time * fps - tick) <= 0.5 + 1e-5
        assert abs(time - tick / fps) <= min(abs(times - tick / fps)) + 2e-6


def test_variable_frame_rates_go_by_the_time_stamps(write_video, tmp_path):
    times = np.concatenate([np.arange(20) / 50, 0.4 + np.arange(20) / 10])
    frames, _ = read(write_video(tmp_path / "vfr.mp4", moving(40), times=times, crf=10), fps=10)
    assert numbers(frames) == [0, 5, 10, 15, *range(20, 40)]
    assert [frame.number for frame in frames] == list(range(24))


def test_a_time_without_frames_is_a_gap(write_video, tmp_path):
    times = np.concatenate([np.arange(10) / 25, 3 + np.arange(10) / 25])
    frames, _ = read(write_video(tmp_path / "gap.mp4", moving(20), times=times), fps=10)
    assert [frame.number for frame in frames if frame.after_gap] == [30]


@pytest.mark.parametrize("angle", [0, 90, 180, -90])
def test_rotation_tags_are_honoured(write_video, tmp_path, angle):
    image = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
    image[: HEIGHT // 2, : WIDTH // 2] = 240
    image[HEIGHT // 2 :, : WIDTH // 2] = 120
    file = write_video(tmp_path / "turned.mp4", [image] * 3, rotation=angle, crf=1)
    shown = np.rot90(image, angle // 90)
    video = open_video(file)
    assert (video.height, video.width) == shown.shape[:2]
    difference = np.abs(read(file)[0][0].image().astype(int) - shown)
    assert np.median(difference) <= 2
    assert np.quantile(difference, 0.9) < 12


def test_mirrored_display_matrices():
    image = np.arange(6).reshape(2, 3)[..., None]
    assert (video_module._turn(image, (-1, 0, 0, 1)) == image[:, ::-1]).all()
    assert (video_module._turn(image, (1, 0, 0, -1)) == image[::-1]).all()
    assert (video_module._turn(image, (0, 1, 1, 0)) == image.swapaxes(0, 1)).all()
    assert (video_module._turn(image, (0, 1, -1, 0)) == np.rot90(image, -1)).all()
    assert (video_module._turn(image, (0, -1, 1, 0)) == np.rot90(image)).all()


def test_pixels_that_are_not_square_are_stretched(write_video, tmp_path):
    file = write_video(tmp_path / "wide.mp4", moving(3), **{"x264-params": "sar=4/3"})
    video = open_video(file)
    assert (video.width, video.height) == (WIDTH * 4 // 3, HEIGHT)
    assert read(file)[0][0].image().shape == (HEIGHT, WIDTH * 4 // 3, 3)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_of_a_cut_file_what_is_there_is_read_and_the_rest_named(write_video, tmp_path, suffix):
    file = Path(write_video(tmp_path / f"whole.{suffix}", moving(100), g=10))
    Path(tmp_path / f"cut.{suffix}").write_bytes(file.read_bytes()[: file.size * 2 // 3])
    frames, reading = read(tmp_path / f"cut.{suffix}")
    assert 30 < len(frames) < 90
    assert any("of 4.0 s: the file is cut" in problem for problem in reading.problems)


def test_damaged_frames_are_left_out_until_the_next_key_frame(clip, tmp_path):
    content = bytearray(clip.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 800] = np.random.default_rng(1).bytes(800)
    (tmp_path / "damaged.mp4").write_bytes(content)
    frames, reading = read(tmp_path / "damaged.mp4")
    assert reading.damaged
    assert "Invalid data" in reading.problems[0]
    assert 30 < len(frames) < 60
    whole = {n: frame.image() for n, frame in enumerate(read(clip)[0])}
    assert all(
        np.abs(frame.image().astype(int) - whole[n]).mean() < 2
        for n, frame in zip(numbers(frames), frames, strict=True)
    )
    assert [frame.after_gap for frame in frames].count(True) == 1


@pytest.mark.parametrize(
    ("name", "pixels", "codec", "source", "convert"),
    [
        ("grey.mp4", "gray", "libx264", "gray", lambda image: image[..., 0]),
        ("ten_bits.mp4", "yuv420p10le", "libx264", "rgb24", lambda image: image),
        ("alpha.mov", "argb", "qtrle", "argb", lambda image: np.dstack([image[..., :1], image])),
        ("film.gif", "rgb8", "gif", "rgb24", lambda image: image),
        ("bare.h264", "yuv420p", "libx264", "rgb24", lambda image: image),
        ("fast.mp4", "yuv420p", "libx264", "rgb24", lambda image: image),
    ],
)
def test_pixel_formats(write_video, tmp_path, name, pixels, codec, source, convert):
    images = moving(6)
    rate = 240 if name == "fast.mp4" else 25
    file = write_video(tmp_path / name, [convert(i) for i in images], rate, codec, pixels, source)
    frames, _ = read(file)
    assert len(frames) == 6
    assert frames[0].image().shape == (HEIGHT, WIDTH, 3)
    if name == "grey.mp4":
        assert np.ptp(frames[0].image().astype(int), axis=2).max() <= 2
        assert np.abs(frames[0].image()[..., 0].astype(int) - images[0][..., 0]).mean() < 8
    elif pixels != "rgb8":
        assert np.abs(frames[0].image().astype(int) - images[0]).mean() < 12


def test_a_video_of_8k(write_video, tmp_path):
    image = np.kron(moving(1)[0], np.ones((90, 80, 1), np.uint8))
    file = write_video(tmp_path / "8k.mp4", [image] * 2, 25, preset="ultrafast", crf=30)
    video = open_video(file)
    assert (video.width, video.height) == (7680, 4320)
    frames = list(read_video(video, 25))
    assert len(frames) == 2
    assert np.abs(frames[0].image()[45::90, 40::80].astype(int) - moving(1)[0]).mean() < 12


@pytest.mark.parametrize(("name", "number", "white"), [("PQ", "smpte2084", 0.5807), ("HLG", "arib-std-b67", 0.75)])
def test_hdr_is_mapped_to_an_ordinary_picture(write_video, tmp_path, name, number, white):
    """Three greys, 10 bits in narrow range: black, 60 % of the reference white's signal, and the reference white."""
    options = {"x264-params": f"colorprim=bt2020:transfer={number}:colormatrix=bt2020nc", "crf": 4}
    signals = np.array([0.0, 0.6 * white, white]).repeat(64)
    images = [np.rint(65535 * signals).astype(np.uint16)[None, :, None].repeat(64, 0).repeat(3, 2)] * 2
    file = write_video(tmp_path / "hdr.mp4", images, 25, "libx264", "yuv420p10le", "rgb48le", **options)
    video = open_video(file)
    assert video.transfer == name
    assert video.notes == (f"HDR ({name}): its highlights are compressed into the range of an ordinary picture",)
    image = next(read_video(video, 25)).image()
    black, middle, bright = (image[20:40, start + 20 : start + 40].astype(int) for start in (0, 64, 128))
    assert black.max() <= 3
    expected = tone_mapped(np.full((1, 1, 3), round(65535 * 0.6 * white), np.uint16), name)[0, 0].astype(int)
    assert np.abs(middle - expected).max() <= 3
    assert 225 < bright.min() <= bright.max() < 240


def test_what_is_no_video_is_one_line(write_video, clip, tmp_path, monkeypatch):
    with av.open(str(tmp_path / "sound.mp4"), "w") as out:
        stream = out.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 44100), np.float32), format="fltp", layout="mono")
        frame.sample_rate = 44100
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").write_text("")
    (tmp_path / "half.mp4").write_bytes(clip.read_bytes()[:32])
    for file, message in (
        (tmp_path / "sound.mp4", "no video stream, only audio"),
        (tmp_path / "text.mp4", "no video that can be read"),
        (tmp_path / "empty.mp4", "no video that can be read"),
        (tmp_path / "half.mp4", "has lost its index"),
        (tmp_path / "none.mp4", "no such file"),
        (tmp_path, "a folder"),
    ):
        with pytest.raises(InputError, match=message) as caught:
            open_video(file)
        assert "\n" not in str(caught.value)
    monkeypatch.setattr("files.untrusted.MOST_PIXELS", 1000)
    with pytest.raises(InputError, match="96 x 48 pixels, expected at most 1000"):
        open_video(clip)


def test_a_code_that_ffmpeg_does_not_know_is_one_line(clip, tmp_path):
    content = clip.read_bytes()
    name = next(name for name in (b"avc1", b"mp4v", b"hev1", b"hvc1") if b"stsd" in content and name in content)
    place = content.index(name, content.index(b"stsd"))
    file = Path(tmp_path) / "unknown.mp4"
    file.write_bytes(content[:place] + b"zzzz" + content[place + 4 :])
    with pytest.raises(InputError, match=r"unknown\.mp4: its video is coded in a way that FFmpeg does not know"):
        open_video(file)


def test_playlists_lead_nowhere(tmp_path):
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nhttp://127.0.0.1:9/a.ts\n#EXT-X-ENDLIST\n")
    with pytest.raises(InputError):
        open_video(tmp_path / "list.m3u8")


def test_memory_does_not_grow_with_the_length(write_video, tmp_path, peak_memory):
    picture = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    files = [write_video(tmp_path / f"{n}.mp4", (picture for _ in range(n)), preset="ultrafast") for n in (60, 600)]

    def consume(file):
        for frame in read_video(open_video(file), 25, threads=1):
            frame.image()

    consume(files[0])
    short, long = (peak_memory(lambda file=file: consume(file)) for file in files)
    assert long < short + 10  # MiB; 540 frames more are 118 MiB
