"""What a camera does to its pictures: motion blur, vignetting, white balance, tone curve, noise and JPEG.

The world's light is linear in the paint of its surfaces. `Photo` turns it into the pixels of one particular camera.
Depth and poses are those of the world: nothing here moves a pixel.
"""

import zlib
from dataclasses import dataclass

import imageio.v3 as iio
import numpy as np
import torch
from torch import Tensor

from inverse_warp import sample

_TAPS = 5  # samples along the path of a pixel while the shutter is open
_LEAST_PATH = 0.4  # pixels: shorter paths are not blurred
_LONGEST_PATH = 0.015  # share of the width: longer paths are cut to it
_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Photo:
    """One camera's way to make pictures, the same for all frames of a drive."""

    gain: float = 1.0
    white_balance: tuple[float, float, float] = (1.0, 1.0, 1.0)
    gamma: float = 1.0  # exponent of the tone curve
    contrast: float = 0.0  # share of an S-shaped curve, negative: flatter
    black: float = 0.0  # added light, as of a veil on the windscreen
    saturation: float = 1.0  # 0: grey
    vignette: float = 0.0  # loss of light in the corners
    shutter: float = 0.0  # share of the time between two frames in which the shutter is open
    softness: float = 0.0  # share of a pixel's light that its eight neighbours receive
    shot_noise: float = 0.0  # standard deviation at full light, in the range 0 to 1
    read_noise: float = 0.0  # standard deviation in the dark
    jpeg: int = 0  # quality, 1 to 100; 0: not compressed
    seed: int = 0

    def develop(self, light: Tensor, frame: int, pose: np.ndarray) -> np.ndarray:
        """The picture, uint8 [H, W, 3], of linear light [3, H, W].

        The noise depends on the frame and on the camera's place (`pose` [4, 4], to the millimetre).
        """
        height, width = light.shape[1:]
        if self.softness:
            light = _soften(light, self.softness)
        gain = light.new_tensor(self.white_balance)[:, None, None] * self.gain
        if self.vignette:
            y = torch.linspace(-1, 1, height, device=light.device)[:, None]
            x = torch.linspace(-1, 1, width, device=light.device)
            gain = gain * (1 - self.vignette * (x * x + y * y) / 2)
        light = light * gain
        if self.shot_noise or self.read_noise:
            place = zlib.crc32(np.round(pose[:3, 3] * 1000).astype("<i8").tobytes())
            rng = np.random.default_rng([self.seed, frame, place])
            noise = torch.from_numpy(rng.standard_normal((3, height, width), np.float32)).to(light.device)
            if self.saturation == 0:  # one sensor for all colours
                noise = noise[:1]
            deviation = (light.clamp(0, 1) * self.shot_noise**2 + self.read_noise**2).sqrt_()
            light = light + noise * deviation
        picture = light.clamp_(0, 1).pow_(self.gamma)
        picture = picture + self.contrast * picture * (1 - picture) * (2 * picture - 1)
        picture = self.black + (1 - self.black) * picture
        if self.saturation != 1:
            grey = (picture * picture.new_tensor(_LUMA)[:, None, None]).sum(0, keepdim=True)
            picture = grey + self.saturation * (picture - grey)
        pixels = (picture * 255).round_().clamp_(0, 255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
        if self.jpeg:
            encoded = iio.imwrite("<bytes>", pixels, extension=".jpg", quality=self.jpeg)
            pixels = iio.imread(encoded, extension=".jpg")
        return np.ascontiguousarray(pixels)


def motion_blur(
    light: Tensor, inverse_depth: Tensor, intrinsics: np.ndarray, next_from_this: np.ndarray, shutter: float
) -> Tensor:
    """Light [3, H, W] of a camera that moves while its shutter is open.

    Each pixel is the mean over its path; the path is straight. The scene counts as static, moving cars are blurred like
    what stands.

    Args:
        inverse_depth: [H, W], 0 = infinitely far.
        intrinsics: K [3, 3].
        next_from_this: [4, 4], the camera's motion from this frame to the next.
        shutter: share of the motion in which the shutter is open.
    """
    height, width = inverse_depth.shape
    (fx, _, cx), (_, fy, cy), _ = intrinsics
    x = (torch.arange(width, device=light.device) - cx).to(light.dtype) / fx
    y = ((torch.arange(height, device=light.device) - cy).to(light.dtype) / fy)[:, None]
    r, t = next_from_this[:3, :3], next_from_this[:3, 3]
    ahead = [float(r[k, 0]) * x + float(r[k, 1]) * y + float(r[k, 2]) + float(t[k]) * inverse_depth for k in range(3)]
    z = ahead[2].clamp(min=0.2)
    path = torch.stack([(ahead[0] / z - x) * fx, (ahead[1] / z - y) * fy], -1) * shutter
    length = path.norm(dim=-1, keepdim=True)
    longest = _LONGEST_PATH * width
    if float(length.max()) < _LEAST_PATH:
        return light
    path = path * (longest / length.clamp(min=longest))
    columns, rows = torch.meshgrid(
        torch.arange(width, device=light.device), torch.arange(height, device=light.device), indexing="xy"
    )
    shares = torch.linspace(-0.5, 0.5, _TAPS, device=light.device)[:, None, None]
    x = (columns + shares * path[..., 0]).clamp(0, width - 1)
    y = (rows + shares * path[..., 1]).clamp(0, height - 1)
    return sample(light.expand(_TAPS, -1, -1, -1), x, y, "border").mean(0)


def _soften(light: Tensor, share: float) -> Tensor:
    """Each pixel gives a share of its light to its eight neighbours."""
    padded = torch.nn.functional.pad(light[None], (1, 1, 1, 1), mode="replicate")
    around = torch.nn.functional.avg_pool2d(padded, 3, 1)[0]
    return light + share * (around - light)
