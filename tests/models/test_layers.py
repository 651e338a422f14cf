import pytest
import torch
from torch.nn import functional

from models.layers import Conv2d


@pytest.mark.parametrize(("kernel", "stride"), [(1, 1), (3, 1), (3, 2), (5, 2), (7, 1), (7, 2)])
@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 5), (7, 8), (20, 31)])
def test_few_pixels_or_many_it_is_the_convolution(kernel, stride, size):
    """Small maps are computed in another way than large ones: the same values and gradients."""
    layer = Conv2d(3, 4, kernel, stride, padding=kernel // 2).double()
    image = torch.randn(2, 3, *size, dtype=torch.float64, requires_grad=True)
    inputs = [image, *layer.parameters()]
    output = layer(image)
    expected = functional.conv2d(image, layer.weight, layer.bias, stride, kernel // 2)
    torch.testing.assert_close(output, expected)
    cotangent = torch.randn_like(expected)
    gradients = (torch.autograd.grad(result, inputs, cotangent) for result in (output, expected))
    for got, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(got, wanted)
