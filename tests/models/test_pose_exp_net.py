import pytest
import torch

from geometry.pose import ROTATIONS, pose_to_matrix
from models.pair_pose_net import PairPoseNet
from models.pose_exp_net import PoseExpNet, rescale_motion


@pytest.mark.parametrize(
    ("sources", "explainability", "name"),
    [(2, True, "PoseExpNet_2refs_exp"), (4, False, "PoseExpNet_4refs")],
)
def test_parameters_are_those_of_the_published_checkpoints(parameter_shapes, sources, explainability, name):
    weights = PoseExpNet(sources, explainability).state_dict()
    assert {key: [*tensor.shape] for key, tensor in weights.items()} == parameter_shapes[name]


@torch.no_grad()
def test_outputs_agree_with_the_reference(reference, fill):
    sources = torch.stack([reference["source_0"], reference["source_1"]], 1)
    network = fill(PoseExpNet(2))
    poses, logits = network.pose_vectors(reference["target"], sources)
    torch.testing.assert_close(poses.double(), reference["pose"], rtol=0, atol=1e-5)
    # Poses are small numbers: held to the same share of the largest, too.
    assert (poses - reference["pose"]).abs().max() < 1e-5 * reference["pose"].abs().max()
    for scale, mask in enumerate(logits):
        torch.testing.assert_close(mask.sigmoid(), reference[f"explainability_{scale}"], rtol=0, atol=1e-5)
    transforms, _ = network(reference["target"], sources)
    torch.testing.assert_close(transforms.double(), pose_to_matrix(reference["pose"]), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sources", [2, 4])
@pytest.mark.parametrize("explainability", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 130)])
def test_any_size_from_32_on(sources, explainability, size):
    network = PoseExpNet(sources, explainability)
    target, others = torch.rand(2, 3, *size), torch.rand(2, sources, 3, *size)
    transforms, logits = network.train()(target, others)
    assert transforms.shape == (2, sources, 4, 4)
    assert (logits is not None) == explainability
    for scale, mask in enumerate(logits or []):
        assert mask.shape == (2, sources, *(-(-side // 2**scale) for side in size))
    again, _ = network.eval()(target, others)
    assert torch.equal(transforms, again)


@torch.no_grad()
@pytest.mark.parametrize("rotation", ROTATIONS)
def test_transforms_are_those_of_the_pose_vectors_in_the_network_s_rotation_form(fill, rotation):
    target, sources = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 3, 64, 64)
    network = fill(PoseExpNet(2, False, rotation=rotation, rotation_scale=1.0))
    vectors, transforms = network.pose_vectors(target, sources)[0], network(target, sources)[0]
    assert torch.equal(transforms, pose_to_matrix(vectors, rotation))
    for other in set(ROTATIONS) - {rotation}:
        assert not torch.equal(transforms, pose_to_matrix(vectors, other))
    assert torch.equal(vectors, fill(PoseExpNet(2, False, rotation_scale=1.0)).pose_vectors(target, sources)[0])


@torch.no_grad()
def test_scales_of_translation_and_rotation(fill):
    target, sources = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 3, 64, 64)
    scaled_network = PoseExpNet(2, translation_scale=0.1, rotation_scale=0.2)
    plain, scaled = (fill(network).pose_vectors(target, sources)[0] for network in (PoseExpNet(2), scaled_network))
    torch.testing.assert_close(scaled[..., :3], 10 * plain[..., :3])
    torch.testing.assert_close(scaled[..., 3:], 20 * plain[..., 3:])
    assert scaled_network.state_dict().keys() == PoseExpNet(2).state_dict().keys()


@torch.no_grad()
def test_a_sideways_step_keeps_points_at_the_orbit_depth_in_place(fill):
    """By the exact geometry, for the small motions of a network: what is left is of second order."""
    target, sources = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 3, 64, 64)
    plain, orbiting = PoseExpNet(2, False), PoseExpNet(2, False, orbit_depth=4.0)
    poses = (fill(network).pose_vectors(target, sources)[0] for network in (plain, orbiting))
    plain_poses, orbiting_poses = (pose.double() for pose in poses)
    assert torch.equal(plain_poses[..., [0, 1, 2, 5]], orbiting_poses[..., [0, 1, 2, 5]])
    steps = plain_poses * torch.tensor([1, 1, 0, 0, 0, 0])  # only sideways, and with the turn that came with it
    turns = orbiting_poses - plain_poses
    size = steps.abs().max()
    assert size > 0
    for depth, still in ((4.0, True), (2.0, False)):
        moved = pose_to_matrix(steps + turns, "euler") @ torch.tensor([0, 0, depth, 1], dtype=torch.float64)
        shift = (moved[..., :2] / moved[..., 2:3]).abs().max()
        assert (shift < 10 * size**2) if still else (shift > size / 8)


def test_half_of_the_first_features_see_only_change():
    """Three equal frames: whatever is in them, features that see their change alone see nothing."""
    network, frame = PoseExpNet(4), torch.rand(1, 3, 40, 40)
    features = network.conv1[0](frame.repeat(1, 5, 1, 1))
    assert features[:, :8].abs().max() < 1e-5
    assert features[:, 8:].abs().max() > 0.01


def test_the_first_poses_are_small():
    poses, _ = PoseExpNet(2).pose_vectors(torch.rand(4, 3, 64, 96) * 2 - 1, torch.rand(4, 2, 3, 64, 96) * 2 - 1)
    assert poses.abs().max() < 0.02


def test_every_parameter_gets_a_gradient():
    network = PoseExpNet(2)
    transforms, logits = network(torch.rand(1, 3, 33, 47), torch.rand(1, 2, 3, 33, 47))
    (transforms.sum() + sum(mask.mean() for mask in logits)).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.any(), name


@pytest.mark.parametrize(
    ("target", "sources"),
    [((1, 3, 64, 64), (1, 3, 3, 64, 64)), ((1, 3, 64, 64), (1, 6, 64, 64)), ((3, 64, 64), (1, 2, 3, 64, 64))],
)
def test_wrong_shapes_say_got_and_expected(target, sources):
    with pytest.raises(ValueError, match=r"got target .* expected"):
        PoseExpNet(2)(torch.zeros(target), torch.zeros(sources))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sources": 0}, "sources is 0, expected 1 or more"),
        ({"rotation": "matrix"}, "rotation is 'matrix', expected one of euler, quaternion, axis-angle"),
        ({"translation_scale": 0.0}, "translation_scale is 0.0, expected a number greater than 0"),
        ({"rotation_scale": -1.0}, "rotation_scale is -1.0, expected a number greater than 0"),
        ({"rotation_scale": float("nan")}, "rotation_scale is nan"),
        ({"orbit_depth": 0.0}, "orbit_depth is 0.0, expected a number greater than 0"),
        ({"orbit_depth": float("inf")}, "orbit_depth is inf"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PoseExpNet(**arguments)


@torch.no_grad()
@pytest.mark.parametrize("network", [PoseExpNet(2, False, width=1 / 16), PairPoseNet(encoder="mobilenet_v2")])
@pytest.mark.parametrize(("before", "after"), [(None, 0.83), (0.5, 2.0), (0.7, None)])
def test_the_same_motion_with_other_scales(network, before, after):
    network = network.double().eval()
    network.orbit_depth = before
    network.pose_scales.copy_(torch.tensor([0.3, 0.3, 0.3, 0.2, 0.2, 0.2]))
    target, sources = torch.rand(2, 3, 32, 64).double(), torch.rand(2, 2, 3, 32, 64).double()
    expected, _ = network(target, sources)
    scales = torch.tensor([0.05, 0.05, 0.05, 0.4, 0.4, 0.4]).double()
    rescale_motion(network, scales, after)
    assert network.orbit_depth == after
    assert torch.equal(network.pose_scales, scales)
    found, _ = network(target, sources)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert (found - torch.eye(4)).abs().max() > 1e-5
