import pytest
import torch

from geometry.pose import pose_to_matrix
from models import PoseExpNet


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
    poses, logits = fill(PoseExpNet(2))(reference["target"], sources)
    torch.testing.assert_close(poses.double(), reference["pose"], rtol=0, atol=1e-5)
    # Poses are small numbers: held to the same share of the largest, too.
    assert (poses - reference["pose"]).abs().max() < 1e-5 * reference["pose"].abs().max()
    for scale, mask in enumerate(logits):
        torch.testing.assert_close(mask.sigmoid(), reference[f"explainability_{scale}"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("sources", [2, 4])
@pytest.mark.parametrize("explainability", [True, False])
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (61, 130)])
def test_any_size_from_32_on(sources, explainability, size):
    network = PoseExpNet(sources, explainability)
    target, others = torch.rand(2, 3, *size), torch.rand(2, sources, 3, *size)
    poses, logits = network.train()(target, others)
    assert poses.shape == (2, sources, 6)
    assert (logits is not None) == explainability
    for scale, mask in enumerate(logits or []):
        assert mask.shape == (2, sources, *(-(-side // 2**scale) for side in size))
    again, _ = network.eval()(target, others)
    assert torch.equal(poses, again)


@torch.no_grad()
def test_scales_of_translation_and_rotation(fill):
    target, sources = torch.rand(2, 3, 64, 64), torch.rand(2, 2, 3, 64, 64)
    scaled_network = PoseExpNet(2, translation_scale=0.1, rotation_scale=0.2)
    plain, scaled = fill(PoseExpNet(2))(target, sources)[0], fill(scaled_network)(target, sources)[0]
    torch.testing.assert_close(scaled[..., :3], 10 * plain[..., :3])
    torch.testing.assert_close(scaled[..., 3:], 20 * plain[..., 3:])
    assert scaled_network.state_dict().keys() == PoseExpNet(2).state_dict().keys()


@torch.no_grad()
def test_a_sideways_step_keeps_points_at_the_fixation_depth_in_place(fill):
    """By the exact geometry, for the small motions of a network: what is left is of second order."""
    target, sources = torch.rand(1, 3, 64, 64), torch.rand(1, 2, 3, 64, 64)
    plain, fixating = PoseExpNet(2, False), PoseExpNet(2, False, fixation_depth=4.0)
    poses = (fill(network)(target, sources)[0] for network in (plain, fixating))
    plain_poses, fixating_poses = (pose.double() for pose in poses)
    assert torch.equal(plain_poses[..., [0, 1, 2, 5]], fixating_poses[..., [0, 1, 2, 5]])
    steps = plain_poses * torch.tensor([1, 1, 0, 0, 0, 0])  # only sideways, and with the turn that came with it
    turns = fixating_poses - plain_poses
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
    poses, _ = PoseExpNet(2)(torch.rand(4, 3, 64, 96) * 2 - 1, torch.rand(4, 2, 3, 64, 96) * 2 - 1)
    assert poses.abs().max() < 0.02


def test_every_parameter_gets_a_gradient():
    network = PoseExpNet(2)
    poses, logits = network(torch.rand(1, 3, 33, 47), torch.rand(1, 2, 3, 33, 47))
    (poses.sum() + sum(mask.mean() for mask in logits)).backward()
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


def test_no_sources_is_refused():
    with pytest.raises(ValueError, match="expected 1 or more"):
        PoseExpNet(0)
