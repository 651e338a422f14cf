"""DispNet: disparity at four scales from one image (paper, section 3.5 and figure 4a)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import SMALLEST_SIDE, channels, conv, crop_like, initialise, upconv

MAX_DISPARITY = 10.0  # disparity = MAX_DISPARITY * sigmoid(x) + MIN_DISPARITY: depth lies between 0.1 and 100
MIN_DISPARITY = 0.01
FIRST_DISPARITY = MIN_DISPARITY + MAX_DISPARITY / 2  # where sigmoid(0) lies


class DispNet(nn.Module):
    """An encoder of seven halvings and a decoder with skip connections that predicts at its last four levels.

    The parameters' names and shapes are those of the well-known PyTorch port's DispNetS.

    Args:
        first_disparity: the disparity that new weights predict, approximately; between 0.01 and 10.01. The default is
            the middle of the range. From there no disparity can grow to more than twice the mean, and training first
            has to change the scale of depth and translation together. 1.2 learns much sooner.
        width: share of the paper's channels that each layer has, a multiple of 1/16 up to 2. At 0.5 a step costs about
            a quarter.
    """

    initial_arguments = ("first_disparity",)  # they choose new weights and mean nothing to trained ones

    def __init__(self, first_disparity: float = FIRST_DISPARITY, width: float = 1.0) -> None:
        super().__init__()
        self.width = width
        c16, c32, c64, c128, c256, c512 = channels(width, 16, 32, 64, 128, 256, 512)
        self.conv1 = _halve(3, c32, 7)
        self.conv2 = _halve(c32, c64, 5)
        self.conv3 = _halve(c64, c128, 3)
        self.conv4 = _halve(c128, c256, 3)
        self.conv5 = _halve(c256, c512, 3)
        self.conv6 = _halve(c512, c512, 3)
        self.conv7 = _halve(c512, c512, 3)

        self.upconv7 = upconv(c512, c512, 3)
        self.upconv6 = upconv(c512, c512, 3)
        self.upconv5 = upconv(c512, c256, 3)
        self.upconv4 = upconv(c256, c128, 3)
        self.upconv3 = upconv(c128, c64, 3)
        self.upconv2 = upconv(c64, c32, 3)
        self.upconv1 = upconv(c32, c16, 3)

        self.iconv7 = nn.Sequential(*conv(c512 + c512, c512))
        self.iconv6 = nn.Sequential(*conv(c512 + c512, c512))
        self.iconv5 = nn.Sequential(*conv(c256 + c256, c256))
        self.iconv4 = nn.Sequential(*conv(c128 + c128, c128))
        self.iconv3 = nn.Sequential(*conv(c64 + c64 + 1, c64))
        self.iconv2 = nn.Sequential(*conv(c32 + c32 + 1, c32))
        self.iconv1 = nn.Sequential(*conv(c16 + 1, c16))

        self.predict_disp4 = _predict(c128)
        self.predict_disp3 = _predict(c64)
        self.predict_disp2 = _predict(c32)
        self.predict_disp1 = _predict(c16)
        initialise(self)
        share = (first_disparity - MIN_DISPARITY) / MAX_DISPARITY
        if not 0 < share < 1:
            raise ValueError(f"first_disparity is {first_disparity}, expected a number between 0.01 and 10.01")
        for predict in (self.predict_disp4, self.predict_disp3, self.predict_disp2, self.predict_disp1):
            nn.init.constant_(predict[0].bias, math.log(share / (1 - share)))  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Disparities of an image.

        Args:
            image: [B, 3, H, W] in [-1, 1], of any size from 32 x 32 on.

        Returns:
            Four disparities [B, 1, ceil(H / 2^s), ceil(W / 2^s)], the finest (s = 0) first, between 0.01 and 10.01.
        """
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < SMALLEST_SIDE:
            raise ValueError(f"image: got shape {list(image.shape)}, expected [B, 3, H, W] with H and W from 32 on")
        conv1 = self.conv1(image)
        conv2 = self.conv2(conv1)
        conv3 = self.conv3(conv2)
        conv4 = self.conv4(conv3)
        conv5 = self.conv5(conv4)
        conv6 = self.conv6(conv5)
        conv7 = self.conv7(conv6)

        iconv7 = self.iconv7(_join(conv6, self.upconv7(conv7)))
        iconv6 = self.iconv6(_join(conv5, self.upconv6(iconv7)))
        iconv5 = self.iconv5(_join(conv4, self.upconv5(iconv6)))
        iconv4 = self.iconv4(_join(conv3, self.upconv4(iconv5)))
        disparity3 = _disparity(self.predict_disp4, iconv4)

        iconv3 = self.iconv3(_join(conv2, self.upconv3(iconv4), disparity3))
        disparity2 = _disparity(self.predict_disp3, iconv3)

        iconv2 = self.iconv2(_join(conv1, self.upconv2(iconv3), disparity2))
        disparity1 = _disparity(self.predict_disp2, iconv2)

        upconv1 = crop_like(self.upconv1(iconv2), image)
        iconv1 = self.iconv1(torch.cat([upconv1, _double(disparity1, image).to(upconv1.dtype)], 1))
        disparity0 = _disparity(self.predict_disp1, iconv1)
        return [disparity0, disparity1, disparity2, disparity3]


def _halve(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(*conv(inputs, outputs, kernel, stride=2), *conv(outputs, outputs, kernel))


def _predict(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 1, 3, padding=1), nn.Sigmoid())


def _disparity(predict: nn.Module, features: Tensor) -> Tensor:
    """The head is computed in float32 also under autocast: bfloat16's 8 bits quantise depth to steps of one percent."""
    with torch.autocast(features.device.type, enabled=False):
        return predict(features.to(next(predict.parameters()).dtype)) * MAX_DISPARITY + MIN_DISPARITY


def _join(skip: Tensor, up: Tensor, coarse_disparity: Tensor | None = None) -> Tensor:
    """Concatenate decoder features, encoder features and the coarser disparity enlarged by 2."""
    parts = [crop_like(up, skip), skip]
    if coarse_disparity is not None:
        parts.append(_double(coarse_disparity, skip).to(up.dtype))
    return torch.cat(parts, 1)


def _double(disparity: Tensor, like: Tensor) -> Tensor:
    # The disparity is a feature here. Published weights expect align_corners=False.
    doubled = functional.interpolate(disparity, scale_factor=2, mode="bilinear", align_corners=False)
    # A view with the strides of channels-last images: without it `torch.cat` puts all features into planes.
    return crop_like(doubled.squeeze(1).unsqueeze(3).permute(0, 3, 1, 2), like)
