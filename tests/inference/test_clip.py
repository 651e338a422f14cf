import numpy as np
import pytest
import torch
from path import Path
from PIL import Image

from datasets.augmentation import normalise
from files.errors import InputError
from files.images import resize_area
from inference.clip import predict_clip, store_frames
from inference.frames import open_inputs
from inference.motion import predict_sequence
from models.pose_exp_net import PoseExpNet

CPU = torch.device("cpu")


@pytest.fixture
def folder(tmp_path, noise):
    folder = Path(tmp_path) / "drive"
    folder.makedirs_p()
    for number, picture in enumerate(noise(9, 64, 96)):
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def predict(folder, depth_net, pose_net=None, batch_size=4, mirror=False, flip_average=False, size=(32, 48)):
    (clip,) = open_inputs([folder], None, 2)
    return predict_clip(clip, depth_net, pose_net, size, folder.parent, batch_size, CPU, mirror, flip_average)


def small(folder, size=(32, 48)):
    return [
        np.ascontiguousarray(resize_area(np.asarray(Image.open(folder / f"{n}.png")), *size).transpose(2, 0, 1))
        for n in range(9)
    ]


@pytest.mark.parametrize("batch_size", [1, 4, 100])
def test_depth_and_snippets_are_those_of_the_test_scripts(folder, brightness_net, batch_size):
    pose_net = PoseExpNet(2, False, width=1 / 16).eval()
    torch.nn.init.normal_(pose_net.pose_pred.bias)
    found = predict(folder, brightness_net, pose_net, batch_size)
    images = small(folder)
    expected = brightness_net(normalise(torch.from_numpy(np.stack(images))))[0][:, 0].detach().numpy()
    np.testing.assert_array_equal([found.disparity[k] for k in range(9)], expected)
    snippets = predict_sequence(pose_net, list(range(9)), lambda number: images[number], 3, 1, "")
    np.testing.assert_allclose(found.snippets, snippets, atol=1e-6)
    assert found.world_from_camera().shape == (9, 3, 4)
    assert found.names == [str(number) for number in range(9)]


def test_mirror_images(folder, brightness_net):
    found = predict(folder, brightness_net, mirror=True, flip_average=True)
    assert all(found.mirror_difference[k].max() < 1e-6 for k in range(9))  # a network without a sense of side

    class Sided(type(brightness_net)):
        def forward(self, image):
            return [super().forward(image)[0] + torch.linspace(0, 1, image.shape[-1])]

    found = predict(folder, Sided(), mirror=True)
    assert found.mirror_difference[0][:, 0].min() > 0.3
    assert found.mirror_difference[0][:, 23:25].max() < 0.05


def test_quantiles_over_the_clip(folder, brightness_net):
    found = predict(folder, brightness_net)
    values = np.stack([found.disparity[k] for k in range(9)])
    for share in (0.05, 0.5, 0.97):
        assert found.disparity_quantile(share) == pytest.approx(np.quantile(values, share), rel=0.01)


def test_too_few_frames_have_no_trajectory(folder, brightness_net):
    for number in range(2, 9):
        (folder / f"{number}.png").unlink()
    found = predict(folder, brightness_net, PoseExpNet(2, False, width=1 / 16).eval())
    assert len(found.disparity) == 2
    assert found.snippets is None
    assert found.world_from_camera() is None


def test_disparities_that_are_no_depth_are_named(folder):
    class Broken(torch.nn.Module):
        def forward(self, image):
            return [image[:, :1] * float("nan")]

    with pytest.raises(InputError, match="frame 0: the network's disparities are not finite"):
        predict(folder, Broken())


def test_stored_frames_are_those_of_the_prediction(folder):
    (clip,) = open_inputs([folder], None, 2)
    frames = store_frames(clip, (32, 48), folder.parent)
    np.testing.assert_array_equal([frames[k] for k in range(len(frames))], small(folder))
