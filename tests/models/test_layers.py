import pytest
import torch
from torch.nn import functional

from models.disp_net import DispNet
from models.layers import Conv2d, channels
from models.pose_exp_net import PoseExpNet


@pytest.mark.parametrize("kernel", [3, 5, 7])
@pytest.mark.parametrize("size", [(1, 1), (3, 1), (1, 3), (4, 5)])
def test_a_convolution_of_stride_2_is_the_convolution(kernel, size):
    layer = Conv2d(3, 4, kernel, 2, padding=kernel // 2).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    output, expected = layer(image), functional.conv2d(image, layer.weight, layer.bias, 2, kernel // 2)
    cotangent = torch.randn_like(expected)
    inputs = [image, *layer.parameters()]
    gradients = [torch.autograd.grad(result, inputs, cotangent) for result in (output, expected)]
    torch.testing.assert_close([output, *gradients[0]], [expected, *gradients[1]])


def test_in_bfloat16_no_gradient_is_what_was_in_memory_before():
    for _ in range(10):
        used = [torch.full((2**power,), float("nan")) for power in range(8, 15) for _ in range(20)]
        layer = Conv2d(16, 16, 3, 2, padding=1)
        del used
        with torch.autocast("cpu", torch.bfloat16):
            output = layer(torch.randn(2, 16, 1, 1))
        output.float().square().sum().backward()
        assert layer.weight.grad.isfinite().all()


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
