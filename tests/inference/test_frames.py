import av
import numpy as np
import pytest
from path import Path
from PIL import Image

from datasets.layout import write_intrinsics
from files.errors import InputError
from inference.frames import median_step, open_inputs

K = np.array([[40, 0, 23.5], [0, 40, 15.5], [0, 0, 1.0]])


def save(folder, pictures, suffix=".png", first=0):
    Path(folder).makedirs_p()
    for number, picture in enumerate(pictures, first):
        Image.fromarray(picture).save(Path(folder) / f"{number:07d}{suffix}")
    return Path(folder)


def open_one(path, fps=None):
    (clip,) = open_inputs([Path(path)], fps, 2)
    return clip


def test_a_folder_is_a_clip_in_order_of_its_numbers(tmp_path, noise):
    pictures = noise(11)
    folder = Path(tmp_path) / "drive"
    folder.makedirs_p()
    for number, picture in enumerate(pictures):
        Image.fromarray(picture).save(folder / f"{number}.png")  # 10.png sorts before 2.png as text
    clip = open_one(folder)
    notes = []
    frames = list(clip.read(notes))
    assert clip.ordered
    assert clip.name == "drive"
    assert (clip.count, clip.size, notes) == (11, (32, 48), [])
    np.testing.assert_array_equal([frame.image for frame in frames], pictures)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(11) / 10)
    np.testing.assert_array_equal([frame.image for frame in clip.read([])], pictures)  # a second time


def test_times_beside_a_folder(tmp_path, noise):
    folder = save(Path(tmp_path) / "09/image_2", noise(3))
    (folder.parent / "times.txt").write_text("5.0\n5.1\n5.3\n")
    clip = open_one(folder)
    assert clip.times_known
    np.testing.assert_allclose([frame.time for frame in clip.read([])], [0, 0.1, 0.3])
    np.testing.assert_allclose([frame.time for frame in open_one(folder, 4).read([])], [0, 0.25, 0.5])


def test_single_images_and_mixed_sizes_are_no_clip(tmp_path, noise):
    folder = save(Path(tmp_path) / "mixed", noise(2))
    Image.fromarray(noise(1, 16, 16)[0]).save(folder / "0000002.png")
    clip = open_one(folder)
    assert not clip.ordered
    assert "48 x 32 pixels: taken as single images" in clip.notes[0]
    (images,) = open_inputs([folder / "0000000.png", folder / "0000001.png"], None, 1)
    assert (images.name, images.ordered, images.count) == ("images", False, 2)


def test_a_prepared_scene_brings_its_camera_and_poses(tmp_path, noise, monkeypatch):
    folder = save(Path(tmp_path) / "scene", noise(3), ".jpg")
    write_intrinsics(folder / "cam.txt", K)
    poses = np.tile(np.eye(3, 4), (3, 1, 1))
    np.savetxt(folder / "poses.txt", poses.reshape(3, 12))
    clip = open_one(folder)
    np.testing.assert_array_equal(clip.intrinsics, K)
    monkeypatch.chdir(folder)
    assert [open_one(path).name for path in (folder, f"{folder}/", ".", "../scene/.")] == ["scene"] * 4
    np.testing.assert_array_equal(clip.world_from_camera, poses)


def test_damaged_images_are_left_out_and_named(tmp_path, noise):
    folder = save(Path(tmp_path) / "drive", noise(4))
    (folder / "0000002.png").write_bytes((folder / "0000002.png").read_bytes()[:500])
    notes = []
    assert [frame.name for frame in open_one(folder).read(notes)] == ["0000000", "0000001", "0000003"]
    assert len(notes) == 1
    assert "0000002.png: truncated or damaged PNG" in notes[0]


def test_a_video_is_sampled_by_time(tmp_path, noise, write_video):
    file = write_video(Path(tmp_path) / "a film.mp4", noise(28), rate=30)
    clip = open_one(file)
    frames = list(clip.read([]))
    assert (clip.name, clip.size, clip.ordered) == ("a film", (32, 48), True)
    np.testing.assert_allclose([frame.time for frame in frames], np.arange(10) / 10, atol=2e-3)
    assert len(list(open_one(file, 30).read([]))) == 28
    assert len(list(open_one(file, 240).read([]))) == 28  # no picture twice


def test_bad_inputs_are_one_line(tmp_path, noise, write_video):
    root = Path(tmp_path)
    (root / "empty").mkdir()
    (root / "text.mp4").write_text("this is no video")
    save(root / "flat", noise(3, 1, 64))
    save(root / "data/scene", noise(3))
    (root / "data/train.txt").write_text("scene\n")
    with av.open(str(root / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.int16), layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    whole = write_video(root / "whole.mov", noise(20), rate=10)
    (root / "cut.mp4").write_bytes(whole.read_bytes()[: whole.size // 2])  # its index was at the end
    for name, message in {
        "nothing": "no such file or folder",
        "empty": "no frames, expected images",
        "text.mp4": "no video that can be read",
        "flat": "64 x 1 pixels, expected 8 or more",
        "data": "a prepared data set; give the folders of its scenes",
        "sound.wav": "no video stream, only audio",
        "cut.mp4": "no video that can be read",
    }.items():
        with pytest.raises(InputError, match=message) as error:
            open_one(root / name)
        assert "\n" not in str(error.value)


def test_of_a_damaged_video_the_rest_is_read(tmp_path, noise, write_video):
    file = write_video(Path(tmp_path) / "film.mkv", noise(40), rate=10, codec="mjpeg", pixels="yuvj420p")
    content = file.read_bytes()
    Path(file).write_bytes(content[: len(content) * 6 // 10])
    notes = []
    count = len(list(open_one(file).read(notes)))
    assert 10 < count < 40
    assert any("film.mkv" in note for note in notes)


def test_clips_of_one_name_get_folders_of_their_own(tmp_path, noise):
    folders = [save(Path(tmp_path) / part / "data", noise(2)) for part in ("a", "b")]
    assert [clip.name for clip in open_inputs(folders, None, 1)] == ["data", "data_2"]


def test_images_of_one_name_get_names_of_their_own(tmp_path, noise):
    root, pictures = Path(tmp_path), noise(4)
    files = [root / name for name in ("a/photo.png", "b/Photo.png", "a/photo_2.png", "a/photo.PNG")]
    for file, picture in zip(files, pictures, strict=True):
        file.parent.makedirs_p()
        Image.fromarray(picture).save(file, format="PNG")
    (images,) = open_inputs(files, None, 1)
    frames = list(images.read([]))
    assert [frame.name for frame in frames] == ["photo", "Photo_2", "photo_2_2", "photo_3"]
    np.testing.assert_array_equal([frame.image for frame in frames], pictures)
    for suffix in ("png", "jpeg"):
        Image.fromarray(pictures[0]).save(root / f"b/x.{suffix}")
    assert [frame.name for frame in open_one(root / "b").read([])] == ["Photo", "x", "x_2"]


def test_median_step():
    assert median_step([0.0, 0.1, 0.2, 5.0]) == pytest.approx(0.1)
    assert median_step([0.0]) == pytest.approx(0.1)
