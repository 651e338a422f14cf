import numpy as np
import pytest
import torch
from path import Path

from files.errors import InputError
from inference.camera import GivenByFlag, choose_intrinsics
from inference.crop import AUTO, NONE, TRAINING, apply_crop
from inference.frames import Clip, Crop, Frame, crop_clip
from inference.scale import find_scale
from models.checkpoint import LoadedModel
from models.learned_camera import LearnedCamera

HEIGHT, WIDTH = 60, 100
K = np.array([[80, 0, 49.5], [0, 80, 29.5], [0, 0, 1.0]])


def clip_of(images, **more):
    """A clip of images uint8 [F, H, W, 3]."""

    def read(notes):
        for number, image in enumerate(images):
            yield Frame(f"{number:07d}", number / 10, image)

    return Clip("drive", Path("films/drive.mp4"), images[0].shape[:2], True, read, len(images), **more)


def trained_on(*views):
    """A checkpoint whose training showed these parts, (name, box), of pictures of 100 x 60 pixels."""
    plain = [{"name": name, "size": [WIDTH, HEIGHT], "box": list(box)} for name, box in views]
    return LoadedModel(None, None, None, {}, views=plain)


@pytest.fixture
def images(noise):
    return noise(3, HEIGHT, WIDTH)


def test_frames_and_k_are_cropped_together(images):
    clip = clip_of(images, intrinsics=K)
    crop_clip(clip, Crop((3, 5, 7, 20), (HEIGHT, WIDTH), "--crop 3,5,7,20"))
    frames = [frame.image for frame in clip.read([])]
    np.testing.assert_array_equal(frames, images[:, 5:40, 3:93])
    assert (clip.size, clip.whole, clip.offset) == ((35, 90), (HEIGHT, WIDTH), (3, 5))
    np.testing.assert_array_equal(clip.intrinsics, [[80, 0, 46.5], [0, 80, 24.5], [0, 0, 1]])
    assert clip.crop.plain() == {"left": 3, "top": 5, "right": 7, "bottom": 20, "source": "--crop 3,5,7,20"}


@pytest.mark.parametrize("given", [GivenByFlag(focal=80), GivenByFlag(fov=90), GivenByFlag()])
def test_the_camera_of_a_flag_or_a_guess_is_that_of_the_whole_picture(images, given):
    """A point of space has one place in the whole picture, and lies there in the cropped one."""
    whole, cropped = clip_of(images), clip_of(images)
    crop_clip(cropped, Crop((3, 5, 7, 20), (HEIGHT, WIDTH), ""))
    loaded = LoadedModel(None, None, None, {})
    point = np.array([0.4, -0.2, 3.0])
    of_whole, of_cropped = (choose_intrinsics(clip, given, loaded)[0] @ point for clip in (whole, cropped))
    np.testing.assert_allclose(of_cropped[:2] / of_cropped[2] + [3, 5], of_whole[:2] / of_whole[2])


@pytest.mark.parametrize("choice", [TRAINING, NONE, (10, 0, 0, 10)])
def test_a_learned_camera_is_that_of_the_trainings_part(images, choice):
    """Trained on rows 10 to 49 at half the size: whatever is cropped here, K is that of the same camera."""
    camera = LearnedCamera(1)
    camera.start_from(torch.tensor([[[40, 0, 24.5], [0, 40, 9.5], [0, 0, 1]]]))
    views = trained_on(("drive", (0, 10, 100, 50))).views
    loaded = LoadedModel(None, None, camera, {}, height=20, width=50, views=views)
    clip = clip_of(images)
    apply_crop(clip, choice, loaded)
    intrinsics, source = choose_intrinsics(clip, GivenByFlag(), loaded)
    left, top = clip.offset
    np.testing.assert_allclose(intrinsics, [[80, 0, 49.5 - left], [0, 80, 29.5 - top], [0, 0, 1]], atol=1e-4)
    assert source == "learned by the checkpoint, for images of 50 x 20 pixels"


def test_without_a_flag_the_crop_is_that_of_the_training(images):
    clip = clip_of(images)
    apply_crop(clip, TRAINING, trained_on(("other", (0, 5, 100, 55)), ("drive", (0, 10, 100, 50))))
    assert clip.crop.margins == (0, 10, 0, 10)  # that of the input with the clip's name
    assert "rows 10 to 49 of 100 x 60 pixels (as the images of the training; --crop none takes all)" in clip.notes[0]

    unknown, ambiguous, prepared = clip_of(images), clip_of(images), clip_of(images, prepared=True)
    apply_crop(unknown, TRAINING, LoadedModel(None, None, None, {}))
    apply_crop(prepared, TRAINING, trained_on(("a", (0, 5, 100, 55))))
    assert (unknown.crop, unknown.notes, prepared.crop) == (None, [], None)
    apply_crop(ambiguous, TRAINING, trained_on(("a", (0, 5, 100, 55)), ("b", (0, 10, 100, 50))))
    assert ambiguous.crop is None
    assert "in 2 ways (such as 0,5,0,5 or 0,10,0,10): nothing is cropped here" in ambiguous.notes[0]


@pytest.mark.parametrize(("choice", "noted"), [(NONE, True), ((0, 0, 0, 10), True), ((0, 10, 0, 11), False)])
def test_another_crop_than_that_of_the_training_is_noted(images, choice, noted):
    clip = clip_of(images)
    apply_crop(clip, choice, trained_on(("drive", (0, 10, 100, 50))))
    assert any("another part of such pictures (--crop 0,10,0,10)" in note for note in clip.notes) == noted


def test_the_bonnet_is_found(noise):
    images = noise(12, HEIGHT, WIDTH)
    images[:, 50:] = 40
    clip = clip_of(images)
    apply_crop(clip, AUTO, LoadedModel(None, None, None, {}))
    assert 10 <= clip.crop.margins[3] <= 13
    assert "bonnet in the lowest" in clip.notes[0]
    moving = clip_of(noise(12, HEIGHT, WIDTH))
    apply_crop(moving, AUTO, LoadedModel(None, None, None, {}))
    assert moving.crop is None
    assert "no border" in moving.notes[0]


def test_the_pixels_of_a_distance_are_those_of_the_whole_picture(images, tmp_path, rendered_drive):
    clip = rendered_drive.predicted(tmp_path, np.full((10, 60, 90), 0.5, np.float32))
    words = ("distance", [10.0, 20.0, 50.0, 20.0, 4.0])
    whole = find_scale(words, clip, None, K, (60, 90), True)
    moved = K.copy()
    moved[:2, 2] -= (3, 5)
    cropped = find_scale(words, clip, None, moved, (60, 90), True, (3, 5))
    assert cropped.value == pytest.approx(whole.value)
    with pytest.raises(InputError, match=r"\(2, 20\) lies outside the 90 x 60 image, which begins at \(3, 5\)"):
        find_scale(("distance", [2.0, 20.0, 50.0, 20.0, 4.0]), clip, None, moved, (60, 90), True, (3, 5))


def test_a_crop_that_leaves_nothing_and_several_sizes_are_one_line(images):
    with pytest.raises(InputError, match=r"--crop 0,0,0,55 leaves 100 x 5 of 100 x 60 pixels"):
        apply_crop(clip_of(images), (0, 0, 0, 55), LoadedModel(None, None, None, {}))
    with pytest.raises(InputError, match="pixels of one size, the images have several"):
        apply_crop(clip_of(images, other_sizes=((8, 8),)), (0, 0, 0, 5), LoadedModel(None, None, None, {}))
    single = clip_of(images)
    single.ordered = False
    with pytest.raises(InputError, match=r"--crop auto: films/drive.mp4: single images"):
        apply_crop(single, AUTO, LoadedModel(None, None, None, {}))
