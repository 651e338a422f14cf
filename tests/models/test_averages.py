"""The mean of a network's predictions over sizes of the image, and over the image and its mirror image."""

import pytest
import torch

from geometry.pose import pose_to_matrix
from models.averages import MotionAverage, SizeAverage, averaged_motion, mirrored_motion, scaled_size
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet


class Brightness(torch.nn.Module):
    """Disparity = (the first channel + 2) times the image's width, and the sizes of the images that it saw."""

    def __init__(self):
        super().__init__()
        self.sizes = []

    def forward(self, image):
        self.sizes.append(tuple(image.shape[2:]))
        return [(image[:, :1] + 2) * image.shape[3]]


def test_the_sizes_are_multiples_of_16_of_at_least_32():
    assert [scaled_size((64, 208), factor) for factor in (0.75, 1, 1.25)] == [(48, 160), (64, 208), (80, 256)]
    assert scaled_size((32, 100), 0.75) == (32, 80)
    assert scaled_size((33, 100), 1) == (33, 100)


def test_the_mean_has_the_scale_of_the_image_s_own_size():
    network = Brightness()
    image = torch.linspace(-0.5, 0.5, 208).expand(2, 3, 64, 208)  # a ramp: resizing changes only its borders
    (disparity,) = SizeAverage(network)(image)
    assert network.sizes == [(64, 208), (48, 160), (80, 256)]
    torch.testing.assert_close(disparity[..., 4:-4], network(image)[0][..., 4:-4], rtol=1e-3, atol=0)


def test_the_mean_is_that_of_the_logarithms():
    network = DispNet(width=1 / 16).double().eval()
    image = torch.rand(2, 3, 64, 96, dtype=torch.float64) * 2 - 1
    own = network(image)[0]
    (alone,) = SizeAverage(network, [1.0])(image)
    torch.testing.assert_close(alone, own)
    (other,) = SizeAverage(network, [0.75])(image)
    torch.testing.assert_close(other.log().mean((1, 2, 3)), own.log().mean((1, 2, 3)))
    (both,) = SizeAverage(network, [0.75, 1.0])(image)
    torch.testing.assert_close(both, (own * other).sqrt())


def test_a_mean_over_no_size_is_refused():
    for factors in ([], [1.0, 0.0]):
        with pytest.raises(ValueError, match="factors are"):
            SizeAverage(Brightness(), factors)


def pose_net():
    network = PoseExpNet(sources=2, explainability=False, width=1 / 16, translation_scale=1.0, rotation_scale=1.0)
    return network.double().eval()


def test_a_mirrored_camera_sees_mirrored_points():
    motion = pose_to_matrix(torch.randn(5, 6, dtype=torch.float64))
    points = torch.cat([torch.randn(5, 3, 1, dtype=torch.float64), torch.ones(5, 1, 1, dtype=torch.float64)], 1)
    mirror = torch.diag(torch.tensor([-1.0, 1, 1, 1], dtype=torch.float64))
    torch.testing.assert_close(mirrored_motion(motion) @ (mirror @ points), mirror @ (motion @ points))
    torch.testing.assert_close(mirrored_motion(mirrored_motion(motion)), motion)


def test_the_motion_of_mirrored_images_is_the_mirrored_motion():
    average = MotionAverage(pose_net())
    target, sources = torch.rand(2, 3, 64, 96).double(), torch.rand(2, 2, 3, 64, 96).double()
    motion, masks = average(target, sources)
    mirrored, _ = average(target.flip(-1), sources.flip(-1))
    assert masks is None
    torch.testing.assert_close(mirrored, mirrored_motion(motion))
    rotation = motion[..., :3, :3]
    torch.testing.assert_close(rotation @ rotation.mT, torch.eye(3).double().expand_as(rotation))
    assert (torch.linalg.det(rotation) > 0).all()


def test_the_mean_motion_lies_between_the_motions():
    network = pose_net()
    target, sources = torch.rand(2, 3, 64, 96).double(), torch.rand(2, 2, 3, 64, 96).double()
    own = network(target, sources)[0]
    torch.testing.assert_close(MotionAverage(network, mirror=False, factors=[1.0])(target, sources)[0], own)
    other = mirrored_motion(network(target.flip(-1), sources.flip(-1))[0])
    mean = MotionAverage(network, factors=[1.0])(target, sources)[0]
    torch.testing.assert_close(mean[..., :3, 3], (own + other)[..., :3, 3] / 2)
    halves = [mean[..., :3, :3].mT @ one[..., :3, :3] for one in (own, other)]  # as far from the one as from the other
    torch.testing.assert_close(halves[0], halves[1].mT)


def test_without_a_flag_the_network_is_as_it_was():
    network = pose_net()
    assert averaged_motion(network, mirror=False, sizes=False) is network
    assert averaged_motion(network, mirror=True, sizes=False).factors == (1.0,)
    assert averaged_motion(network, mirror=False, sizes=True).factors == (0.75, 1.0, 1.25)
