"""The building blocks of both networks."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

SMALLEST_SIDE = 32  # pixels of an image that the networks can halve often enough
MAX_WIDTH = 2  # times the paper's channels, which is four times its weights
LARGE = 2**21  # weights of a convolution from which `to_channels_last` leaves it out on a CPU


class Conv2d(nn.Conv2d):
    """`nn.Conv2d`, also where oneDNN fails.

    With stride 2, of images 1 pixel wide, and in bfloat16, its gradient of the weights holds whatever was in memory
    before, NaN too (torch 2.14.1). A column of zeros to the right adds nothing to the padding that is there.
    """

    def forward(self, image: Tensor) -> Tensor:
        if image.shape[3] == 1 and self.stride[1] == 2:
            image = functional.pad(image, (0, 1))
        return super().forward(image)


def to_channels_last(model: nn.Module, device: torch.device) -> None:
    """Give a model's weights, and by them its activations, the memory format with the channels last.

    On a CPU convolutions with two million weights or more stay as they are. They see images of a few pixels, where
    PyTorch spends as long on permuting the gradient of channels-last weights as on all else (docs/benchmarks.md).
    """
    model.to(memory_format=torch.channels_last)
    if device.type != "cpu":
        return
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and module.weight.numel() >= LARGE:
            module.weight.data = module.weight.data.contiguous()
            module.register_forward_pre_hook(_channels_first)


def _channels_first(layer: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].contiguous(),)  # channels-last images would make PyTorch copy the weights, too


def channels(width: float, *numbers: int) -> list[int]:
    """The paper's numbers of channels times a width factor, which is a multiple of 1/16 so that they stay whole."""
    if not (0 < width <= MAX_WIDTH and 16 * width == int(16 * width)):
        raise ValueError(f"width is {width}, expected a multiple of 1/16 up to {MAX_WIDTH}")
    return [int(width * number) for number in numbers]


def conv(inputs: int, outputs: int, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    """Convolution and ReLU; the size is divided by the stride, rounded up."""
    return [Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2), nn.ReLU(inplace=True)]


def upconv(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """Transposed convolution that doubles the size, and ReLU."""
    layer = nn.ConvTranspose2d(inputs, outputs, kernel, stride=2, padding=1, output_padding=kernel % 2)
    return nn.Sequential(layer, nn.ReLU(inplace=True))


def crop_like(tensor: Tensor, like: Tensor) -> Tensor:
    """Crop to the height and width of `like`: an odd size, halved and doubled again, has one row or column more."""
    return tensor[:, :, : like.shape[2], : like.shape[3]]


def divide_up(side: int, stride: int) -> int:
    """side / stride, rounded up. No number is negative on the way: ONNX rounds the quotient of one the other way."""
    return (side + stride - 1) // stride


def initialise(network: nn.Module) -> None:
    """Draw weights after Glorot and Bengio (2010), uniform; set biases to 0."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]


def rounded_size(size: Sequence[int], factor: float) -> tuple[int, int]:
    """(height, width) times a factor, rounded to multiples of 16 from 32 on. Example: (64, 208) by 0.75: (48, 160)."""
    height, width = (max(SMALLEST_SIDE, 16 * round(factor * side / 16)) for side in size)
    return height, width
