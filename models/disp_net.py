"""DispNet: disparity at four scales from one image (paper, section 3.5 and figure 4a)."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from models.layers import Conv2d, conv, crop_like, initialise, upconv

MAX_DISPARITY = 10.0  # disparity = MAX_DISPARITY * sigmoid(x) + MIN_DISPARITY: depth lies between 0.1 and 100
MIN_DISPARITY = 0.01
FIRST_DISPARITY = MIN_DISPARITY + MAX_DISPARITY / 2  # where sigmoid(0) lies


class DispNet(nn.Module):
    """An encoder of seven halvings and a decoder with skip connections that predicts at its last four levels.

    The parameters' names and shapes are those of the well-known PyTorch port's DispNetS.

    Args:
        first_disparity: near what the predictions of new weights lie. In the middle of the range, where a plain start
            lies, nothing can be more than twice as near as the mean, and training spends its beginning on making all
            of it, and the translation with it, of another scale.
    """

    def __init__(self, first_disparity: float = FIRST_DISPARITY) -> None:
        super().__init__()
        self.conv1 = _halve(3, 32, 7)
        self.conv2 = _halve(32, 64, 5)
        self.conv3 = _halve(64, 128, 3)
        self.conv4 = _halve(128, 256, 3)
        self.conv5 = _halve(256, 512, 3)
        self.conv6 = _halve(512, 512, 3)
        self.conv7 = _halve(512, 512, 3)

        self.upconv7 = upconv(512, 512, 3)
        self.upconv6 = upconv(512, 512, 3)
        self.upconv5 = upconv(512, 256, 3)
        self.upconv4 = upconv(256, 128, 3)
        self.upconv3 = upconv(128, 64, 3)
        self.upconv2 = upconv(64, 32, 3)
        self.upconv1 = upconv(32, 16, 3)

        self.iconv7 = nn.Sequential(*conv(512 + 512, 512))
        self.iconv6 = nn.Sequential(*conv(512 + 512, 512))
        self.iconv5 = nn.Sequential(*conv(256 + 256, 256))
        self.iconv4 = nn.Sequential(*conv(128 + 128, 128))
        self.iconv3 = nn.Sequential(*conv(64 + 64 + 1, 64))
        self.iconv2 = nn.Sequential(*conv(32 + 32 + 1, 32))
        self.iconv1 = nn.Sequential(*conv(16 + 1, 16))

        self.predict_disp4 = _predict(128)
        self.predict_disp3 = _predict(64)
        self.predict_disp2 = _predict(32)
        self.predict_disp1 = _predict(16)
        initialise(self)
        share = (first_disparity - MIN_DISPARITY) / MAX_DISPARITY
        if not 0 < share < 1:
            raise ValueError(f"first disparity is {first_disparity}, expected one above 0.01 and below 10.01")
        for predict in (self.predict_disp4, self.predict_disp3, self.predict_disp2, self.predict_disp1):
            nn.init.constant_(predict[0].bias, math.log(share / (1 - share)))  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> list[Tensor]:
        """Disparities of an image.

        Args:
            image: [B, 3, H, W] in [-1, 1], of any size from 32 x 32 on.

        Returns:
            Four disparities [B, 1, ceil(H / 2^s), ceil(W / 2^s)], the finest (s = 0) first, between 0.01 and 10.01.
        """
        if image.ndim != 4 or image.shape[1] != 3 or min(image.shape[2:]) < 32:
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
    return nn.Sequential(Conv2d(inputs, 1, 3, padding=1), nn.Sigmoid())


def _disparity(predict: nn.Module, features: Tensor) -> Tensor:
    """In full precision also under autocast: bfloat16's 8 bits would make steps of a percent in the depth."""
    with torch.autocast(features.device.type, enabled=False):
        return predict(features.to(next(predict.parameters()).dtype)) * MAX_DISPARITY + MIN_DISPARITY


def _join(skip: Tensor, up: Tensor, coarse_disparity: Tensor | None = None) -> Tensor:
    """Decoder, encoder and (doubled) coarser disparity side by side."""
    parts = [crop_like(up, skip), skip]
    if coarse_disparity is not None:
        parts.append(_double(coarse_disparity, skip).to(up.dtype))
    return torch.cat(parts, 1)


def _double(disparity: Tensor, like: Tensor) -> Tensor:
    # As a network feature only. align_corners=False here is the architecture's (published weights expect it).
    return crop_like(functional.interpolate(disparity, scale_factor=2, mode="bilinear", align_corners=False), like)
