import pytest
import torch
from torch import nn

from geometry.snippets import Snippets
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet
from models.sfm_learner import GivenCamera, SfMLearner

SMALL = 1 / 16


def snippets(batch=2, sources=2, height=33, width=47) -> Snippets:
    images = torch.rand(batch, 1 + sources, 3, height, width) * 2 - 1
    intrinsics = torch.tensor([[30.0, 0, 23], [0, 30, 16], [0, 0, 1]]).repeat(batch, 1, 1)
    return Snippets(images[:, 0], images[:, 1:], intrinsics)


def test_parameters_and_weights_are_the_depth_network_s_then_the_pose_network_s():
    """Adam's state in a checkpoint refers to parameters by their number."""
    depth_net, pose_net = DispNet(width=SMALL), PoseExpNet(2, width=SMALL)
    model = SfMLearner(depth_net, pose_net)
    expected = [*depth_net.parameters(), *pose_net.parameters()]
    assert len(expected) == len(list(model.parameters()))
    assert all(one is other for one, other in zip(model.parameters(), expected, strict=True))
    names = [f"depth_net.{name}" for name in depth_net.state_dict()]
    assert list(model.state_dict()) == names + [f"pose_net.{name}" for name in pose_net.state_dict()]


@pytest.mark.parametrize("sources", [2, 4])
@pytest.mark.parametrize("explainability", [True, False])
@torch.no_grad()
def test_a_prediction_is_what_the_three_parts_predict(sources, explainability):
    depth_net, pose_net = DispNet(width=SMALL), PoseExpNet(sources, explainability, width=SMALL)
    given = snippets(sources=sources)
    prediction = SfMLearner(depth_net, pose_net)(given)
    sizes = [(33, 47), (17, 24), (9, 12), (5, 6)]
    assert [disparity.shape for disparity in prediction.disparities] == [(2, 1, *size) for size in sizes]
    assert prediction.source_from_target.shape == (2, sources, 4, 4)
    assert (prediction.mask_logits is not None) == explainability
    if explainability:
        assert [logits.shape for logits in prediction.mask_logits] == [(2, sources, *size) for size in sizes]
    assert prediction.intrinsics is given.intrinsics
    for disparity, expected in zip(prediction.disparities, depth_net(given.target), strict=True):
        assert torch.equal(disparity, expected)
    assert torch.equal(prediction.source_from_target, pose_net(given.target, given.sources)[0])


class LearnedFocalLength(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.focal_length = nn.Parameter(torch.tensor(40.0))

    def forward(self, given: Snippets) -> torch.Tensor:
        learned = torch.eye(3) * self.focal_length
        return torch.where(torch.eye(3, dtype=torch.bool), learned, given.intrinsics)


def test_a_camera_may_learn():
    model = SfMLearner(DispNet(width=SMALL), PoseExpNet(2, width=SMALL), LearnedFocalLength())
    prediction = model(snippets())
    assert prediction.intrinsics[0, 0, 0].item() == 40
    prediction.intrinsics.sum().backward()
    assert model.camera.focal_length.grad.item() == 2 * 3
    assert list(model.state_dict())[-1] == "camera.focal_length"


def test_the_given_camera_has_no_weights():
    assert not GivenCamera().state_dict()


def test_one_call_moves_all_parts():
    model = SfMLearner(DispNet(width=SMALL), PoseExpNet(2, width=SMALL)).double().eval()
    given = snippets()
    prediction = model(Snippets(*(tensor.double() for tensor in given[:3])))
    assert {tensor.dtype for tensor in (*prediction.disparities, prediction.source_from_target)} == {torch.float64}
    assert not any(module.training for module in model.modules())
