import pytest
import torch

from models.disp_net import DispNet
from models.layers import channels
from models.pose_exp_net import PoseExpNet


@pytest.mark.parametrize("width", [1 / 16, 0.5, 2])
@torch.no_grad()
def test_a_width_factor_scales_the_channels(width):
    disp_net, pose_exp_net = DispNet(width=width), PoseExpNet(2, width=width)
    shapes = {name: list(weight.shape) for net in (disp_net, pose_exp_net) for name, weight in net.state_dict().items()}
    assert shapes["conv7.0.weight"][0] == 256 * width  # PoseExpNet's, which has this name, too
    assert shapes["iconv3.0.weight"] == [64 * width, 2 * 64 * width + 1, 3, 3]
    assert shapes["predict_disp1.0.weight"] == [1, 16 * width, 3, 3]
    assert shapes["predict_mask1.weight"] == [2, 16 * width, 3, 3]
    target, sources = torch.rand(1, 3, 33, 47), torch.rand(1, 2, 3, 33, 47)
    assert disp_net(target)[0].shape == (1, 1, 33, 47)
    assert pose_exp_net(target, sources)[0].shape == (1, 2, 4, 4)


@pytest.mark.parametrize("width", [0, -1, 0.3, 1 / 32, 2.5, float("nan")])
def test_a_width_that_leaves_no_whole_channels_is_refused(width):
    with pytest.raises(ValueError, match="expected a multiple of 1/16 up to 2"):
        channels(width, 16)
