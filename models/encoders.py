"""Encoders of other tasks, of torchvision and timm: feature maps of images at strides 2, 4, 8, 16 and 32.

torchvision and timm keep their own names of weights, so that files of theirs load (`models.encoder_weights`).
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import divide_up

TIMM = "timm:"  # begins the name of an encoder of timm
STRIDES = (2, 4, 8, 16, 32)
# Mean and standard deviation of the images in [0, 1] that an encoder was trained on. monodepth2 and SC-SfMLearner have
# one of each for all channels.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
STATISTICS = {"imagenet": IMAGENET, "monodepth2": ((0.45,) * 3, (0.225,) * 3)}
# Number of a feature map's last layer among `features` of torchvision's MobileNetV2.
_MOBILENET_STAGES = (1, 3, 6, 13, 17)


class Encoder(nn.Module):
    """The layers of an image classifier up to its last feature map.

    Args:
        name: "resnet18", "resnet50", "mobilenet_v2" (torchvision's), or "timm:NAME" for a convolutional network of
            timm, which is an optional package (requirements-timm.txt).
        frames: number of images that are stacked along the channels.
        statistics: mean and standard deviation that the images are normalised by: "imagenet", those of the
            classifier's published weights; or "monodepth2", 0.45 and 0.225.

    Attributes:
        network: torchvision's or timm's network, with its names of weights.
        strides: of the feature maps; some networks of timm have none at stride 2.
        channels: of the feature maps.
    """

    factor: Tensor
    offset: Tensor

    def __init__(self, name: str, frames: int = 1, statistics: str = "imagenet") -> None:
        super().__init__()
        if statistics not in STATISTICS:
            raise ValueError(f"statistics is {statistics!r:.40}, expected one of {', '.join(STATISTICS)}")
        self.name, self.frames = name, frames
        self.strides: tuple[int, ...] = STRIDES
        mean, std = STATISTICS[statistics]
        if name in ("resnet18", "resnet50"):
            self.network, self.channels = _resnet(name, frames)
        elif name == "mobilenet_v2":
            self.network, self.channels = _mobilenet_v2(frames)
        elif name.startswith(TIMM):
            self.network, self.strides, self.channels, published = _timm_network(name, frames)
            mean, std = published if statistics == "imagenet" else (mean, std)
        else:
            raise ValueError(f"encoder {name!r:.40}: expected resnet18, resnet50, mobilenet_v2 or {TIMM}NAME")
        # (x + 1) / 2 brings images from [-1, 1] to [0, 1]. Not among the weights, whose names are torchvision's.
        means, stds = (torch.tensor(values * frames)[:, None, None] for values in (mean, std))
        self.register_buffer("factor", 0.5 / stds, persistent=False)
        self.register_buffer("offset", (0.5 - means) / stds, persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Feature maps of images.

        Args:
            images: [B, 3 * frames, H, W] in [-1, 1], of any size.

        Returns:
            A feature map for each of `strides`, the finest first: [B, channels, ceil(H / stride), ceil(W / stride)].
        """
        x = images * self.factor + self.offset
        network: Any = self.network
        if self.name.startswith(TIMM):  # some of these networks take multiples of 32 only, and some round sizes down
            height, width = x.shape[2:]
            padded = functional.pad(x, (0, 32 * divide_up(width, 32) - width, 0, 32 * divide_up(height, 32) - height))
            scales = zip(_timm_maps(network, padded), self.strides, strict=True)
            return [map[:, :, : divide_up(height, stride), : divide_up(width, stride)] for map, stride in scales]
        if self.name == "mobilenet_v2":
            features = []
            for number, layer in enumerate(network.features):
                x = layer(x)
                if number in _MOBILENET_STAGES:
                    features.append(x)
            return features
        features = [network.relu(network.bn1(network.conv1(x)))]
        features.append(network.layer1(network.maxpool(features[0])))
        for layer in (network.layer2, network.layer3, network.layer4):
            features.append(layer(features[-1]))
        return features


def classifier(name: str) -> nn.Module:
    """The whole classifier that an encoder is part of, with its own names of weights."""
    if name.startswith(TIMM):
        return _timm().create_model(name.removeprefix(TIMM))
    import torchvision  # here: it takes as long to import as torch itself, and most commands need none of it

    return torchvision.models.get_model(name)


def encoders_of(model: nn.Module) -> dict[str, Encoder]:
    """The encoders in a model by their names there."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Encoder)}


def _resnet(name: str, frames: int) -> tuple[nn.Module, tuple[int, ...]]:
    network: Any = classifier(name)
    network.avgpool = network.fc = nn.Identity()
    if frames > 1:
        network.conv1 = _first_layer(network.conv1, frames)
    wide = network.layer4[-1].expansion
    return network, (64, 64 * wide, 128 * wide, 256 * wide, 512 * wide)


def _mobilenet_v2(frames: int) -> tuple[nn.Module, tuple[int, ...]]:
    network: Any = classifier("mobilenet_v2")
    network.features = network.features[: _MOBILENET_STAGES[-1] + 1]  # the next one, to 1280 channels, is the head's
    network.classifier = nn.Identity()
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.inplace = False  # in place, autograd copies the input first, which its gradient needs
    if frames > 1:
        network.features[0][0] = _first_layer(network.features[0][0], frames)
    return network, (16, 24, 32, 96, 320)


def _first_layer(layer: nn.Conv2d, frames: int) -> nn.Conv2d:
    """The first convolution for stacked images, with weights drawn as torchvision draws them."""
    size: dict[str, Any] = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding")}
    wide = nn.Conv2d(frames * layer.in_channels, layer.out_channels, bias=False, **size)
    nn.init.kaiming_normal_(wide.weight, mode="fan_out")
    return wide


def _timm_network(name: str, frames: int) -> tuple[nn.Module, tuple[int, ...], tuple[int, ...], tuple]:
    """A network of timm that returns its feature maps, their strides and channels, and its images' mean and std."""
    timm, short = _timm(), name.removeprefix(TIMM)
    if not timm.is_model(short):
        raise ValueError(f"timm {timm.__version__} has no network {short!r:.60} (timm.list_models() has the names)")
    try:
        with torch.device("meta"):
            stages = [stage["reduction"] for stage in timm.create_model(short, features_only=True).feature_info.info]
    except (RuntimeError, AttributeError, TypeError, KeyError) as error:  # the ways of the networks that have no stages
        raise ValueError(f"{name} gives no feature maps ({' '.join(str(error).split())[:80]})") from None
    strides = tuple(stride for stride in STRIDES if stride in stages)
    settings = timm.get_pretrained_cfg(short)
    if strides[-4:] != STRIDES[1:]:
        raise ValueError(f"{name} has feature maps of strides {sorted(set(stages))}, expected 4, 8, 16 and 32")
    if settings.fixed_input_size:  # transformers with windows of pixels or an embedding of each position
        raise ValueError(f"{name} takes images of {settings.input_size[1]} x {settings.input_size[2]} only")
    last = {stride: number for number, stride in enumerate(stages)}
    wanted = [last[stride] for stride in strides]
    with torch.device("meta"):
        _check_sizes(name, timm.create_model(short, features_only=True, out_indices=wanted), strides)
    network = timm.create_model(short, features_only=True, in_chans=3 * frames, out_indices=wanted)
    return network, strides, tuple(network.feature_info.channels()), (settings.mean, settings.std)


@torch.no_grad()
def _check_sizes(name: str, network: nn.Module, strides: tuple[int, ...]) -> None:
    """ValueError if a network on the meta device does not have maps of ceil(side / stride) for a small image.

    Convolutions without padding give smaller maps, and some kinds of attention take few sizes.
    """
    side = 64
    try:
        sizes = [tuple(map.shape[2:]) for map in _timm_maps(network.eval(), torch.empty(1, 3, side, side))]
    except (RuntimeError, AssertionError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:80] or type(error).__name__
        raise ValueError(f"{name} takes no images of {side} x {side} ({reason}), expected any size") from None
    for (height, width), stride in zip(sizes, strides, strict=True):
        if (height, width) != (side // stride, side // stride):
            raise ValueError(
                f"{name} has a feature map of {width} x {height} for images of {side} x {side}, expected "
                f"{side // stride} x {side // stride} at stride {stride}"
            )


def _timm_maps(network: Any, images: Tensor) -> list[Tensor]:
    """The feature maps [B, channels, H, W] of a network of timm."""
    maps = network(images)
    if str(getattr(network, "output_fmt", "")).endswith("NHWC"):
        maps = [map.movedim(-1, 1) for map in maps]
    return maps


def _timm() -> Any:
    try:
        import timm
    except ImportError:
        raise ValueError(f"{TIMM}NAME needs the package timm: python -m pip install -r requirements-timm.txt") from None
    return timm
