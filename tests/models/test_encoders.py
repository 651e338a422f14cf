import sys

import pytest
import torch
import torchvision
from torch import nn

from models import SfMLearner
from models.encoder_depth_net import EncoderDepthNet
from models.encoders import Encoder, classifier, encoders_of
from models.pair_pose_net import PairPoseNet
from models.pose_exp_net import PoseExpNet

# The networks of timm whose names begin with test_ are made for tests. The last two have no feature map at stride 2;
# the very last one has its channels last.
NAMES = ("resnet18", "mobilenet_v2", "timm:test_efficientnet", "timm:test_convnext", "timm:test_mambaout")


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_feature_maps_have_their_strides_and_channels(name, frames):
    encoder = Encoder(name, frames)
    assert encoder.strides == ((4, 8, 16, 32) if name in NAMES[-2:] else (2, 4, 8, 16, 32))
    for height, width in ((32, 32), (37, 50), (64, 96)):
        features = encoder(torch.rand(2, 3 * frames, height, width))
        expected = [
            (2, channels, -(-height // stride), -(-width // stride))
            for channels, stride in zip(encoder.channels, encoder.strides, strict=True)
        ]
        assert [tuple(map.shape) for map in features] == expected


@torch.no_grad()
def test_resnet50_has_wide_feature_maps():
    with torch.device("meta"):
        encoder = Encoder("resnet50").eval()
        assert [map.shape[1] for map in encoder(torch.zeros(1, 3, 32, 32))] == [64, 256, 512, 1024, 2048]
    assert encoder.channels == (64, 256, 512, 1024, 2048)


@torch.no_grad()
def test_the_last_feature_map_is_the_classifier_s_before_its_last_layer():
    """torchvision's whole network, on images normalised as its documentation says, gives the same class scores."""
    encoder, whole = Encoder("resnet18").eval(), torchvision.models.resnet18().eval()
    missing, surplus = whole.load_state_dict(encoder.network.state_dict(), strict=False)
    assert (missing, surplus) == (["fc.weight", "fc.bias"], [])
    image = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = whole((image - mean) / std)
    torch.testing.assert_close(whole.fc(encoder(2 * image - 1)[-1].mean((2, 3))), expected)


@torch.no_grad()
def test_mobilenet_s_feature_maps_are_those_of_its_layers():
    encoder = Encoder("mobilenet_v2").eval()
    image = torch.rand(1, 3, 64, 96)
    mean, std = (torch.tensor(x)[:, None, None] for x in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    expected = encoder.network.features((image - mean) / std)
    torch.testing.assert_close(encoder(2 * image - 1)[-1], expected)
    assert encoder.network.state_dict().keys() < torchvision.models.mobilenet_v2().state_dict().keys()


def test_no_activation_of_mobilenet_is_copied_for_its_gradient():
    """ReLU6 in place changes what its gradient needs: autograd copies that before."""
    activations = [module for module in Encoder("mobilenet_v2").modules() if isinstance(module, nn.ReLU6)]
    assert len(activations) == 34
    assert not any(module.inplace for module in activations)


def test_images_are_normalised_by_the_statistics_that_are_named():
    image = torch.rand(1, 6, 4, 5)
    for statistics, mean, std in (("imagenet", 0.406, 0.225), ("monodepth2", 0.45, 0.225)):
        encoder = Encoder("mobilenet_v2", frames=2, statistics=statistics)
        found = (2 * image - 1) * encoder.factor + encoder.offset
        torch.testing.assert_close(found[:, 5], (image[:, 5] - mean) / std)
    its_own = Encoder("timm:test_convnext")  # was trained with 0.5 and 0.5
    torch.testing.assert_close(its_own.factor.flatten(), torch.ones(3))
    torch.testing.assert_close(its_own.offset.flatten(), torch.zeros(3))


def test_encoders_of_a_model():
    model = SfMLearner(EncoderDepthNet("mobilenet_v2", channels="8,8,8,8,8"), PairPoseNet(encoder="mobilenet_v2"))
    assert list(encoders_of(model)) == ["depth_net.encoder", "pose_net.encoder"]
    assert encoders_of(SfMLearner(nn.Identity(), PoseExpNet(width=1 / 16))) == {}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet34"}, "encoder 'resnet34': expected resnet18, resnet50, mobilenet_v2 or timm:NAME"),
        ({"name": "resnet18", "statistics": "kitti"}, "statistics is 'kitti', expected one of imagenet, monodepth2"),
        ({"name": "timm:no_such_net"}, "timm .* has no network 'no_such_net'"),
        ({"name": "timm:hf_hub:somebody/net"}, "timm .* has no network 'hf_hub:somebody/net'"),
        ({"name": "timm:vit_tiny_patch16_224"}, r"feature maps of strides \[16\], expected 4, 8, 16 and 32"),
        ({"name": "timm:swin_tiny_patch4_window7_224"}, "takes images of 224 x 224 only"),
        ({"name": "timm:inception_v3"}, r"inception_v3 takes no images of 64 x 64 \(Calculated .*expected any size"),
        ({"name": "timm:inception_v4"}, r"inception_v4 takes no images of 64 x 64 \(Calculated .*expected any size"),
        (
            {"name": "timm:inception_resnet_v2"},
            r"resnet_v2 takes no images of 64 x 64 \(Calculated .*expected any size",
        ),
        ({"name": "timm:bat_resnext26ts"}, r"takes no images of 64 x 64 \(AssertionError\), expected any size"),
        (
            {"name": "timm:pnasnet5large"},
            "a feature map of 31 x 31 for images of 64 x 64, expected 32 x 32 at stride 2",
        ),
    ],
)
def test_what_there_is_not_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        Encoder(**arguments)


def test_without_timm_its_requirement_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)  # import fails
    with pytest.raises(ValueError, match=r"timm:NAME needs the package timm: .* requirements-timm.txt"):
        Encoder("timm:resnet18")


def test_a_classifier_has_all_weights_of_its_encoder():
    for name in ("resnet18", "timm:test_efficientnet"):
        assert Encoder(name).network.state_dict().keys() < classifier(name).state_dict().keys()
