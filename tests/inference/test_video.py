import os

import av
import numpy as np
import pytest
from path import Path

from files.errors import InputError
from inference.pictures import Range, draw, draw_legend, panel_size
from inference.video import write_video


def test_a_video_that_browsers_play(tmp_path):
    file = Path(tmp_path) / "a: film.mp4"
    pictures = [np.full((48, 64, 3), (40 * number, 100, 200 - 40 * number), np.uint8) for number in range(5)]
    with write_video(file, 10) as add:
        for picture in pictures:
            add(picture)
    assert os.listdir(tmp_path) == [file.name]
    with av.open(f"file:{file}") as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert stream.average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    assert len(frames) == 5
    np.testing.assert_allclose(np.mean(frames, (1, 2)), np.mean(pictures, (1, 2)), atol=6)
    content = file.read_bytes()
    assert content.index(b"moov") < content.index(b"mdat")  # it plays while it is loaded


def test_a_stopped_video_leaves_nothing(tmp_path):
    def stop():
        with write_video(Path(tmp_path) / "film.mp4", 10) as add:
            add(np.zeros((48, 64, 3), np.uint8))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert os.listdir(tmp_path) == []


def test_no_folder_to_write_to(tmp_path):
    with pytest.raises(InputError, match=r"film\.mp4: could not be written"):
        with write_video(Path(tmp_path) / "missing/film.mp4", 10) as add:
            add(np.zeros((48, 64, 3), np.uint8))


def test_the_same_depth_has_the_same_colour_in_all_frames():
    colours = Range(highest=1.0, scale=2.0, unit="m")
    image = np.zeros((32, 32, 3), np.uint8)
    near, far = np.full((16, 16), 0.9, np.float32), np.full((16, 16), 0.2, np.float32)
    mixed = np.concatenate([near, far])
    whole, of_near = draw(image, mixed, colours, legend=False), draw(image, near, colours, legend=False)
    assert whole.shape == (32, 64, 3)  # beside each other
    np.testing.assert_array_equal(whole[0, 40], of_near[0, 40])
    assert whole[0, 40].sum() > whole[31, 40].sum()  # near is bright
    wide = draw(np.zeros((20, 60, 3), np.uint8), near, colours)
    assert wide.shape[:2] == (40 + draw_legend(60, colours).shape[0], 60)  # stacked
    assert wide.shape[0] % 2 == 0


def test_panels_have_even_sides_and_a_limit():
    assert panel_size(540, 960) == (540, 960)
    assert panel_size(375, 1242) == (376, 1242)
    assert panel_size(4320, 7680) == (720, 1280)
    assert panel_size(9, 2000) == (6, 1280)
