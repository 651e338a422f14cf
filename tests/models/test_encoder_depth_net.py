import pytest
import torch

from files.errors import InputError
from models import DEPTH_NETS, NetworkSpec, make
from models.encoder_depth_net import EncoderDepthNet, _convolve

TINY = "timm:test_efficientnet"


@torch.no_grad()
@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (64, 96), (75, 130)])
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "timm:test_convnext"])
def test_four_scales_of_any_size(name, height, width):
    disparities = make(DEPTH_NETS, NetworkSpec(name)).eval()(torch.rand(2, 3, height, width) * 2 - 1)
    assert [tuple(scale.shape) for scale in disparities] == [
        (2, 1, -(-height // 2**s), -(-width // 2**s)) for s in range(4)
    ]
    assert all(((scale > 0.01) & (scale < 10)).all() for scale in disparities)


@torch.no_grad()
@pytest.mark.parametrize("finest_scale", [0, 1])
def test_new_weights_predict_about_the_first_disparity(finest_scale):
    for first in (0.5, 1.2, 5.0):
        channels = "64,32,16,8,8" if finest_scale == 0 else "64,32,16,8"
        network = EncoderDepthNet(TINY, first_disparity=first, channels=channels, finest_scale=finest_scale).eval()
        for scale in network(torch.rand(2, 3, 64, 96) * 2 - 1):
            assert scale.mean().item() == pytest.approx(first, rel=0.2)


@torch.no_grad()
def test_the_finest_disparity_is_the_enlarged_one_of_half_the_size():
    network = EncoderDepthNet(TINY, channels="64,32,16,8", finest_scale=1).eval()
    full, half, *_ = network(torch.rand(1, 3, 64, 96))
    expected = torch.nn.functional.interpolate(half, scale_factor=2, mode="bilinear", align_corners=False)
    assert torch.equal(full, expected)
    assert len(network.decoder.heads) == 3
    assert len(EncoderDepthNet(TINY).decoder.heads) == 4


def test_each_weight_has_a_gradient():
    network = EncoderDepthNet(TINY, channels="64,32,16,8,8")
    sum(scale.mean() for scale in network(torch.rand(2, 3, 64, 64))).backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0] == []


@torch.no_grad()
def test_borders_are_mirrored():
    layer = EncoderDepthNet(TINY).decoder.before[0]
    channels = layer.in_channels
    x = torch.rand(1, channels, 2, 3)
    expected = layer(torch.nn.functional.pad(x, (1, 1, 1, 1), mode="reflect"))
    assert torch.equal(_convolve(layer, x), expected)
    single = torch.rand(1, channels, 1, 3)  # one row has nothing to mirror and is repeated
    twice = _convolve(layer, single.expand(-1, -1, 3, -1))
    torch.testing.assert_close(_convolve(layer, single), twice[:, :, 1:2])


@torch.no_grad()
def test_heads_are_float32_under_autocast():
    network = EncoderDepthNet(TINY, channels="64,32,16,8,8").eval()
    image = torch.rand(1, 3, 64, 64) * 2 - 1
    with torch.autocast("cpu", torch.bfloat16):
        disparities = network(image)
        assert all(scale.dtype == torch.float32 for scale in disparities)
    for scale, exact in zip(disparities, network(image), strict=True):
        torch.testing.assert_close(scale, exact, rtol=0.05, atol=0)
        assert len(scale.unique()) > 0.5 * scale.numel()  # bfloat16 would leave few values


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"channels": "256,128,64"}, "channels is '256,128,64', expected 5 whole numbers such as 256,128,64"),
        ({"channels": "256,128,64,32,0"}, "channels is '256,128,64,32,0', expected 5"),
        ({"channels": "a,b,c,d,e"}, "channels is 'a,b,c,d,e', expected 5"),
        ({"channels": "9,9,9,9,9", "finest_scale": 1}, "channels is '9,9,9,9,9', expected 4 whole numbers"),
        ({"finest_scale": 2}, "finest_scale is 2, expected 0 or 1"),
        ({"max_disparity": 0.01}, "max_disparity is 0.01, expected a number greater than 0.01"),
        ({"max_disparity": float("inf")}, "max_disparity is inf"),
        ({"first_disparity": 10.0}, "first_disparity is 10.0, expected a number between 0.01 and max_disparity"),
        ({"statistics": "kitti"}, "statistics is 'kitti', expected one of imagenet, monodepth2"),
    ],
)
def test_arguments_out_of_range_are_the_user_s_error(arguments, message):
    with pytest.raises(InputError, match=f"^resnet18: {message}"):
        make(DEPTH_NETS, NetworkSpec("resnet18", arguments))


def test_a_wrong_shape_is_named():
    network = EncoderDepthNet(TINY)
    for shape in ((3, 64, 64), (1, 1, 64, 64), (1, 3, 31, 64)):
        with pytest.raises(ValueError, match=r"expected \[B, 3, H, W\] with H and W from 32 on"):
            network(torch.zeros(shape))
