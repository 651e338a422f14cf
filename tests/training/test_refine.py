import copy

import numpy as np
import pytest
import torch

from files.errors import InputError
from loss_functions import ObjectiveOptions
from models.disp_net import DispNet
from models.pose_exp_net import PoseExpNet
from training.refine import OF_OTHERS, Refinement, refine, stored_objective

K = np.array([[40, 0, 31.5], [0, 40, 15.5], [0, 0, 1.0]])
PAPER = ObjectiveOptions(explainability=False)


@pytest.fixture
def networks():
    torch.manual_seed(0)
    return DispNet(width=1 / 16).eval(), PoseExpNet(2, False, width=1 / 16).eval()


def frames(count=6):
    """A pattern that moves to the left by 2 pixels per frame."""
    x, y = np.meshgrid(np.arange(64), np.arange(32))
    waves = [127 + 100 * np.sin((x + 2 * k) / 5) * np.cos(y / 6) for k in range(count)]
    return np.repeat(np.stack(waves)[:, None], 3, 1).astype(np.uint8)


@pytest.mark.parametrize("options", [PAPER, OF_OTHERS, ObjectiveOptions(explainability=False, geometry_weight=0.5)])
def test_the_loss_on_the_clip_falls(networks, options):
    depth_net, pose_net = networks
    losses = refine(depth_net, pose_net, frames(), K, options, Refinement(12, 2e-3, 4), "clip")
    assert len(losses) == 12
    assert np.mean(losses[-3:]) < 0.97 * np.mean(losses[:3])
    assert not depth_net.training  # BatchNorm keeps the training's statistics
    assert not pose_net.training


def test_the_same_clip_gives_the_same_weights(networks):
    others = copy.deepcopy(networks)
    for depth_net, pose_net in (networks, others):
        refine(depth_net, pose_net, frames(), K, PAPER, Refinement(2), "clip")
    for one, other in zip(networks[0].parameters(), others[0].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_clip_of_one_snippet_is_enough_and_a_shorter_one_refused(networks):
    assert len(refine(*networks, frames(3), K, PAPER, Refinement(1), "clip")) == 1
    with pytest.raises(InputError, match="2 frames, expected 3 or more"):
        refine(*networks, frames(2), K, PAPER, Refinement(1), "clip")


def test_a_loss_that_is_not_finite_ends_it(networks):
    with torch.no_grad():
        networks[0].predict_disp1[0].bias.fill_(float("nan"))
    with pytest.raises(InputError, match="the loss of step 1 is not finite; try a lower --refine-rate"):
        refine(*networks, frames(), K, PAPER, Refinement(3), "clip")


def test_the_objective_is_the_checkpoints_own():
    assert stored_objective({"objective": {"smoothness_weight": 0.25}}, "a.pt").smoothness_weight == 0.25
    assert stored_objective({"data": "x"}, "a.pt") == OF_OTHERS
    assert stored_objective(None, "a.pt") == OF_OTHERS
    with pytest.raises(InputError, match=r"a\.pt: damaged"):
        stored_objective({"objective": {"smoothness_weight": "much"}}, "a.pt")
