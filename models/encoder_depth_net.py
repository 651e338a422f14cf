"""Disparity from an encoder that was trained for another task, and a decoder with skip connections.

The decoder is that of Godard et al., "Digging Into Self-Supervised Monocular Depth Estimation" (ICCV 2019), which
SC-SfMLearner uses, too: nearest-neighbour upsampling, 3 x 3 convolutions, ELU.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.disp_net import MIN_DISPARITY
from models.encoders import Encoder
from models.layers import SMALLEST_SIDE, crop_like, divide_up

SCALES = 4


class EncoderDepthNet(nn.Module):
    """Predicts disparity = 0.01 + (max_disparity - 0.01) sigmoid(x) at four scales.

    Args:
        encoder: see `models.encoders.Encoder`.
        first_disparity: the disparity that new weights predict, approximately; between 0.01 and `max_disparity`.
        max_disparity: 10 as in monodepth2; SC-SfMLearner has 10.01.
        channels: of the decoder's levels from the coarsest (stride 16) on.
        finest_scale: of the finest predicted disparity. 0: the full size. 1: half the size, a decoder with one level
            less; disparity 0 is disparity 1, enlarged by 2.
        statistics: of the encoder's images, see `models.encoders.Encoder`.
    """

    initial_arguments = ("first_disparity",)

    def __init__(
        self,
        encoder: str,
        first_disparity: float = 5.0,
        max_disparity: float = 10.0,
        channels: str = "256,128,64,32,16",
        finest_scale: int = 0,
        statistics: str = "imagenet",
    ) -> None:
        super().__init__()
        if finest_scale not in (0, 1):
            raise ValueError(f"finest_scale is {finest_scale}, expected 0 or 1")
        widths = _whole_numbers(channels, 5 - finest_scale)
        if not MIN_DISPARITY < max_disparity < float("inf"):
            raise ValueError(f"max_disparity is {max_disparity}, expected a number greater than {MIN_DISPARITY}")
        share = (first_disparity - MIN_DISPARITY) / (max_disparity - MIN_DISPARITY)
        if not 0 < share < 1:
            raise ValueError(f"first_disparity is {first_disparity}, expected a number between 0.01 and max_disparity")
        self.max_disparity = max_disparity
        self.encoder = Encoder(encoder, statistics=statistics)
        self.decoder = DepthDecoder(self.encoder.strides, self.encoder.channels, widths, math.log(share / (1 - share)))

    def forward(self, image: Tensor) -> list[Tensor]:
        """Disparities of an image.

        Args:
            image: [B, 3, H, W] in [-1, 1], of any size from 32 x 32 on.

        Returns:
            Four disparities [B, 1, ceil(H / 2^s), ceil(W / 2^s)], the finest (s = 0) first.
        """
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(f"image: got shape {list(image.shape)}, expected [B, 3, H, W] with H and W from 32 on")
        outputs = self.decoder(self.encoder(image), (image.shape[2], image.shape[3]))
        disparities = [MIN_DISPARITY + (self.max_disparity - MIN_DISPARITY) * x.sigmoid() for x in outputs]
        if len(disparities) < SCALES:
            double = functional.interpolate(disparities[0], scale_factor=2, mode="bilinear", align_corners=False)
            disparities.insert(0, crop_like(double, image))
        return disparities


class DepthDecoder(nn.Module):
    """Doubles the coarsest feature map level by level: a convolution before and one after the skip connection joins.

    Args:
        strides, channels: of the encoder's feature maps.
        widths: channels of the levels at stride 16, 8, 4, 2 and, with five of them, 1.
        first_output: that new weights predict, before the sigmoid.
    """

    def __init__(
        self, strides: Sequence[int], channels: Sequence[int], widths: Sequence[int], first_output: float
    ) -> None:
        super().__init__()
        self.strides = tuple(strides)
        skips = dict(zip(strides, channels, strict=True))
        levels = [16 // 2**number for number in range(len(widths))]
        inputs = [channels[-1], *widths[:-1]]
        self.before = nn.ModuleList([_conv(i, width) for i, width in zip(inputs, widths, strict=True)])
        self.after = nn.ModuleList(
            [_conv(width + skips.get(level, 0), width) for level, width in zip(levels, widths, strict=True)]
        )
        # A head for each level from stride 8 on; heads[0] is the finest.
        self.heads = nn.ModuleList([_conv(width, 1) for width in widths[:0:-1]])
        for head in self.heads:
            nn.init.constant_(head.bias, first_output)  # type: ignore[arg-type]

    def forward(self, features: list[Tensor], size: tuple[int, int]) -> list[Tensor]:
        """The heads' outputs [B, 1, h_s, w_s] in float32, the finest first.

        Args:
            features: of the encoder.
            size: height and width of the image.
        """
        skips = dict(zip(self.strides, features, strict=True))
        x = features[-1]
        outputs: list[Tensor] = []
        for number, (before, after) in enumerate(zip(self.before, self.after, strict=True)):
            stride = 16 // 2**number
            x = functional.elu(_convolve(before, x))
            x = functional.interpolate(x, [divide_up(side, stride) for side in size])
            if stride in skips:
                x = torch.cat([x, skips[stride]], 1)
            x = functional.elu(_convolve(after, x))
            if number > 0:
                outputs.insert(0, _head(self.heads[len(self.heads) - number], x))
        return outputs


def _conv(inputs: int, outputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3)  # `_convolve` pads


def _convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """The convolution of an image with mirrored borders. A side of one pixel has nothing to mirror and is repeated."""
    if min(x.shape[2:]) > 1:
        return layer(functional.pad(x, (1, 1, 1, 1), mode="reflect"))
    for side, padding in ((x.shape[3], (1, 1, 0, 0)), (x.shape[2], (0, 0, 1, 1))):
        x = functional.pad(x, padding, mode="reflect" if side > 1 else "replicate")
    return layer(x)


def _head(layer: nn.Module, x: Tensor) -> Tensor:
    """The head is computed in float32 also under autocast: bfloat16's 8 bits quantise depth to steps of one percent."""
    with torch.autocast(x.device.type, enabled=False):
        return _convolve(layer, x.to(next(layer.parameters()).dtype))


def _whole_numbers(text: str, count: int) -> list[int]:
    """The numbers of channels in a text such as "96,64,48,32"."""
    try:
        numbers = [int(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != count or not all(0 < number <= 4096 for number in numbers):
        raise ValueError(f"channels is {text!r:.60}, expected {count} whole numbers such as 256,128,64")
    return numbers
