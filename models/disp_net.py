"""DispNet: disparity at four scales from one image (paper, section 3.5 and figure 4a)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

MAX_DISPARITY = 10.0  # disparity = MAX_DISPARITY * sigmoid(x) + MIN_DISPARITY: depth lies between 0.1 and 100
MIN_DISPARITY = 0.01


class DispNet(nn.Module):
    """An encoder of seven halvings and a decoder with skip connections that predicts at its last four levels.

    The parameters' names and shapes are those of the well-known PyTorch port's DispNetS.
    """

    def __init__(self) -> None:
        super().__init__()
        widths = [32, 64, 128, 256, 512, 512, 512]
        self.conv1 = _halve(3, widths[0], 7)
        self.conv2 = _halve(widths[0], widths[1], 5)
        self.conv3 = _halve(widths[1], widths[2], 3)
        self.conv4 = _halve(widths[2], widths[3], 3)
        self.conv5 = _halve(widths[3], widths[4], 3)
        self.conv6 = _halve(widths[4], widths[5], 3)
        self.conv7 = _halve(widths[5], widths[6], 3)

        self.upconv7 = _double(512, 512)
        self.upconv6 = _double(512, 512)
        self.upconv5 = _double(512, 256)
        self.upconv4 = _double(256, 128)
        self.upconv3 = _double(128, 64)
        self.upconv2 = _double(64, 32)
        self.upconv1 = _double(32, 16)

        self.iconv7 = _conv(512 + 512, 512)
        self.iconv6 = _conv(512 + 512, 512)
        self.iconv5 = _conv(256 + 256, 256)
        self.iconv4 = _conv(128 + 128, 128)
        self.iconv3 = _conv(64 + 64 + 1, 64)
        self.iconv2 = _conv(32 + 32 + 1, 32)
        self.iconv1 = _conv(16 + 1, 16)

        self.predict_disp4 = _predict(128)
        self.predict_disp3 = _predict(64)
        self.predict_disp2 = _predict(32)
        self.predict_disp1 = _predict(16)

        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)  # type: ignore[arg-type]

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
        disparity3 = self.predict_disp4(iconv4) * MAX_DISPARITY + MIN_DISPARITY

        iconv3 = self.iconv3(_join(conv2, self.upconv3(iconv4), disparity3))
        disparity2 = self.predict_disp3(iconv3) * MAX_DISPARITY + MIN_DISPARITY

        iconv2 = self.iconv2(_join(conv1, self.upconv2(iconv3), disparity2))
        disparity1 = self.predict_disp2(iconv2) * MAX_DISPARITY + MIN_DISPARITY

        height, width = image.shape[2:]
        upconv1 = self.upconv1(iconv2)[:, :, :height, :width]
        iconv1 = self.iconv1(torch.cat([upconv1, _double_disparity(disparity1, upconv1)], 1))
        disparity0 = self.predict_disp1(iconv1) * MAX_DISPARITY + MIN_DISPARITY
        return [disparity0, disparity1, disparity2, disparity3]


def _halve(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=2, padding=kernel // 2),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, kernel, padding=kernel // 2),
        nn.ReLU(inplace=True),
    )


def _double(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(inputs, outputs, 3, stride=2, padding=1, output_padding=1), nn.ReLU(inplace=True)
    )


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True))


def _predict(inputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, 1, 3, padding=1), nn.Sigmoid())


def _join(skip: Tensor, up: Tensor, coarse_disparity: Tensor | None = None) -> Tensor:
    """Decoder, encoder and (upsampled) disparity side by side; an odd size loses the doubled size's last row."""
    parts = [up[:, :, : skip.shape[2], : skip.shape[3]], skip]
    if coarse_disparity is not None:
        parts.append(_double_disparity(coarse_disparity, skip))
    return torch.cat(parts, 1)


def _double_disparity(disparity: Tensor, like: Tensor) -> Tensor:
    # As a network feature only. align_corners=False here is the architecture's (published weights expect it).
    doubled = functional.interpolate(disparity, scale_factor=2, mode="bilinear", align_corners=False)
    return doubled[:, :, : like.shape[2], : like.shape[3]]
