import pytest
import torch

from files.errors import InputError
from geometry.pose import pose_to_matrix
from models import POSE_NETS, NetworkSpec, make, predicts_masks
from models.pair_pose_net import PairPoseNet

TINY = "timm:test_efficientnet"


def make_tiny(**arguments) -> PairPoseNet:
    torch.manual_seed(0)
    return PairPoseNet(encoder=TINY, **arguments).eval()


@torch.no_grad()
@pytest.mark.parametrize("order", ["time", "target-first"])
@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_each_source_is_seen_with_the_target_alone(order, count):
    """The motion to a source does not depend on the others; `sources` is what the training had."""
    network = make_tiny(sources=2, order=order)
    frames = torch.rand(2, count + 1, 3, 32, 64) * 2 - 1
    target, sources = frames[:, count // 2], torch.cat([frames[:, : count // 2], frames[:, count // 2 + 1 :]], 1)
    transforms, masks = network(target, sources)
    assert masks is None
    assert transforms.shape == (2, count, 4, 4)
    assert network.sources == 2
    for k in range(count):
        if order == "time" and k < count // 2:  # the pair (source, target), as if the target were the later source
            matrix = network(sources[:, k], target[:, None])[0][:, 0].inverse()
        else:
            matrix = network(target, sources[:, k : k + 1])[0][:, 0]
        torch.testing.assert_close(transforms[:, k], matrix, rtol=0, atol=1e-6)


@torch.no_grad()
def test_in_order_of_time_the_snippet_reversed_gives_the_inverse_pair():
    """(a, b) predicts b_from_a, whether b is the target or a."""
    network = make_tiny(rotation_scale=1.0, translation_scale=1.0)
    a, b, c = torch.rand(3, 1, 3, 32, 64) * 2 - 1
    a_from_b, _ = network(b, torch.stack([a, c], 1))
    b_from_a, _ = network(a, torch.stack([c, b], 1))
    product = a_from_b[:, 0] @ b_from_a[:, 1]
    torch.testing.assert_close(product, torch.eye(4)[None], rtol=0, atol=1e-5)
    assert (a_from_b[:, 0] - torch.eye(4)).abs().max() > 0.01


@torch.no_grad()
@pytest.mark.parametrize("rotation", ["axis-angle", "euler", "quaternion"])
def test_the_outputs_meaning_and_scales(rotation):
    target, sources = torch.rand(2, 3, 32, 64), torch.rand(2, 2, 3, 32, 64)
    network = make_tiny(order="target-first", rotation=rotation, translation_scale=0.1, rotation_scale=0.2)
    plain = make_tiny(order="target-first", rotation=rotation)
    vectors = network.pose_vectors(target, sources)
    assert torch.equal(network(target, sources)[0], pose_to_matrix(vectors, rotation))
    torch.testing.assert_close(vectors[..., :3], 10 * plain.pose_vectors(target, sources)[..., :3])
    torch.testing.assert_close(vectors[..., 3:], 20 * plain.pose_vectors(target, sources)[..., 3:])
    orbiting = make_tiny(order="target-first", rotation=rotation, orbit_depth=0.5).pose_vectors(target, sources)
    t, r = plain.pose_vectors(target, sources).split(3, -1)
    expected = r + 2 * torch.stack([t[..., 1], -t[..., 0], torch.zeros_like(t[..., 0])], -1)
    torch.testing.assert_close(orbiting, torch.cat([t, expected], -1))


def test_gradients_are_finite_where_frames_are_equal():
    network = make_tiny()
    with torch.no_grad():
        for parameter in network.pose_pred.parameters():
            parameter.zero_()  # the identity, where an axis has no direction
    target = torch.rand(1, 3, 32, 64)
    transforms, _ = network(target, target[:, None].expand(-1, 2, -1, -1, -1))
    assert torch.equal(transforms, torch.eye(4).expand(1, 2, 4, 4))
    (transforms[:, 1, :3] * torch.arange(12.0).view(3, 4).exp()).sum().backward()
    assert all(p.grad is None or p.grad.isfinite().all() for p in network.parameters())
    assert network.pose_pred.bias.grad.abs().min() > 0


@torch.no_grad()
def test_motion_is_float32_under_autocast():
    target, sources = torch.rand(1, 3, 32, 64), torch.rand(1, 2, 3, 32, 64)
    network = make_tiny()
    with torch.autocast("cpu", torch.bfloat16):
        vectors = network.pose_vectors(target, sources)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors, network.pose_vectors(target, sources), rtol=0.1, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": 0}, "sources is 0, expected 1 or more"),
        ({"order": "random"}, "order is 'random', expected one of time, target-first"),
        ({"rotation": "matrix"}, "rotation is 'matrix', expected one of euler, quaternion, axis-angle"),
        ({"encoder": "vgg"}, "encoder 'vgg': expected resnet18, resnet50, mobilenet_v2 or timm:NAME"),
        ({"orbit_depth": -1.0}, "orbit_depth is -1.0, expected a number greater than 0"),
        ({"translation_scale": 0.0}, "translation_scale is 0.0, expected a number greater than 0"),
    ],
)
def test_arguments_out_of_range_are_the_user_s_error(arguments, message):
    with pytest.raises(InputError, match=f"^pair_pose_net: {message}"):
        make(POSE_NETS, NetworkSpec("pair_pose_net", arguments))


def test_it_predicts_no_masks():
    assert not predicts_masks("pair_pose_net")
    assert predicts_masks("pose_exp_net")


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match=r"got target .* expected \[B, 3, H, W\] and \[B, N, 3, H, W\]"):
        make_tiny()(torch.zeros(1, 3, 32, 64), torch.zeros(1, 3, 32, 64))
