import numpy as np
import pytest
import torch
from path import Path

from files.errors import InputError
from inference.camera import GivenByFlag, centred, choose_intrinsics, focal_of, resized_intrinsics
from inference.frames import Clip
from models.checkpoint import LoadedModel
from models.learned_camera import LearnedCamera

SIZE = (100, 300)  # of the clip
K = np.array([[200, 0, 149.5], [0, 200, 49.5], [0, 0, 1.0]])


def clip_of(folder, intrinsics=None):
    return Clip("clip", Path(folder), SIZE, True, lambda notes: iter(()), intrinsics=intrinsics)


def learned(*starts):
    """A checkpoint trained at half the size whose cameras have learned focal lengths of 1.1, 1.2, ... x the start."""
    camera = LearnedCamera(len(starts))
    camera.start_from(torch.tensor(np.stack(starts)).float())
    with torch.no_grad():
        camera.log_focal[:, 0] = torch.log(1 + 0.1 * torch.arange(1, len(starts) + 1))
    return LoadedModel(None, None, camera, {}, height=SIZE[0] // 2, width=SIZE[1] // 2)


def without_camera():
    return LoadedModel(None, None, None, {})


def test_flags_come_first(tmp_path):
    clip, loaded = clip_of(tmp_path, K), learned(resized_intrinsics(K, SIZE, (50, 150)))
    assert choose_intrinsics(clip, GivenByFlag(fov=90), loaded)[0][0, 0] == pytest.approx(150)
    assert choose_intrinsics(clip, GivenByFlag(focal=123), loaded)[0][1, 1] == 123


def test_a_learned_camera_is_that_of_the_clips_size(tmp_path):
    start = resized_intrinsics(K, SIZE, (50, 150))
    intrinsics, source = choose_intrinsics(clip_of(tmp_path), GivenByFlag(), learned(start))
    assert source == "learned by the checkpoint, for images of 150 x 50 pixels"
    np.testing.assert_allclose(intrinsics, [[220, 0, 149.5], [0, 220, 49.5], [0, 0, 1]], rtol=1e-5)


def guessed(folder):
    """A prepared scene whose cam.txt is a guess."""
    (Path(folder) / "camera.json").write_text('{"source": "guess"}')
    return folder


def test_a_scene_that_brings_a_measured_camera_keeps_it(tmp_path):
    loaded = learned(resized_intrinsics(K, SIZE, (50, 150)))
    intrinsics, source = choose_intrinsics(clip_of(tmp_path, K), GivenByFlag(), loaded)
    assert (intrinsics[0, 0], source) == (200, f"{tmp_path}/cam.txt")
    assert choose_intrinsics(clip_of(guessed(tmp_path), K), GivenByFlag(), loaded)[0][0, 0] == pytest.approx(220)


def test_of_several_learned_cameras_the_one_that_recorded_the_scene(tmp_path):
    start = resized_intrinsics(K, SIZE, (50, 150))
    loaded = learned(np.diag([2, 2, 1]) @ start, start)
    guessed(tmp_path)
    assert choose_intrinsics(clip_of(tmp_path, K), GivenByFlag(), loaded)[0][0, 0] == pytest.approx(240, rel=1e-5)
    other = np.diag([1.5, 1.5, 1]) @ K
    assert choose_intrinsics(clip_of(tmp_path, other), GivenByFlag(), loaded)[0][0, 0] == 300
    assert "a guess" in choose_intrinsics(clip_of(tmp_path), GivenByFlag(), loaded)[1]
    loaded.cameras = [["a"], [str(Path(tmp_path).name)]]  # began elsewhere, by --fov
    for folder in (tmp_path, f"{tmp_path}/", f"{tmp_path}/."):
        found = choose_intrinsics(clip_of(folder, other), GivenByFlag(), loaded)[0]
        assert found[0, 0] == pytest.approx(240, rel=1e-5)


def test_a_camera_learned_from_the_middle_of_the_input(tmp_path):
    """data/prepare_video.py cuts both sides evenly for the aspect: 300 x 100 becomes 132 x 50 of 150 x 50."""
    camera = LearnedCamera(1)
    half = resized_intrinsics(K, SIZE, (50, 150))
    half[0, 2] -= 9  # the crop
    camera.start_from(torch.tensor(half[None]).float())
    loaded = LoadedModel(None, None, camera, {}, height=50, width=132)
    intrinsics, source = choose_intrinsics(clip_of(tmp_path), GivenByFlag(), loaded)
    np.testing.assert_allclose(intrinsics, K, atol=1e-4)
    assert source.endswith("for images of 132 x 50 pixels, as if they were the middle of 300 x 100")
    loaded.width = 64  # too little of the input
    assert choose_intrinsics(clip_of(tmp_path), GivenByFlag(), loaded)[1].startswith("a guess")


def test_a_guess_is_named(tmp_path):
    (Path(tmp_path) / "camera.json").write_text('{"source": "guess"}')
    assert choose_intrinsics(clip_of(tmp_path, K), GivenByFlag(), without_camera())[1].endswith("a guess (camera.json)")
    intrinsics, source = choose_intrinsics(clip_of(tmp_path), GivenByFlag(), without_camera())
    assert source.startswith("a guess: 60 degrees")
    np.testing.assert_allclose(intrinsics, centred(focal_of(60, 300), *SIZE))


def test_camera_files(tmp_path):
    folder = Path(tmp_path)
    (folder / "cam.txt").write_text("200 0 149.5\n0 200 49.5\n0 0 1\n")
    (folder / "cameras.txt").write_text("# COLMAP\n1 PINHOLE 600 200 400 400 300 100\n")
    (folder / "lens.txt").write_text("1 SIMPLE_RADIAL 600 200 400 300 100 -0.2\n")
    (folder / "square.txt").write_text("1 PINHOLE 600 600 400 400 300 300\n")
    for name in ("cam.txt", "", "cameras.txt"):
        found = choose_intrinsics(clip_of(folder), GivenByFlag(file=folder / name), without_camera())[0]
        np.testing.assert_allclose(found, K)
    for name, message in (("lens.txt", "the lens has distortion"), ("square.txt", "for images of 600 x 600 pixels")):
        with pytest.raises(InputError, match=message):
            choose_intrinsics(clip_of(folder), GivenByFlag(file=folder / name), without_camera())
