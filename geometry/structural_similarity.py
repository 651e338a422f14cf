"""The structural dissimilarity of images, with its gradient by hand.

SSIM takes some thirty passes over the images, and automatic differentiation as many again. The passes here work on one
image at a time, which stays in a CPU's cache, and the backward pass has three sums over windows instead of five.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

_C1, _C2 = 81 * 0.01**2, 81 * 0.03**2  # of sums over windows of 9 pixels, whose products are 81 times those of means
_CACHED = 2**18  # numbers of a piece on a CPU: a dozen such tensors fit into its caches


def dissimilarity(target: Tensor, images: Tensor, target_sums: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """clamp((1 - SSIM) / 2, 0, 1) over windows of 3 x 3, mean over the channels (Wang et al., IEEE TIP 2004).

    Windows are plain means, the border is reflected, C1 = 0.01^2 and C2 = 0.03^2, as in monodepth2 (section 3.1).
    Gradients reach the images, not the target.

    Args:
        target: [B, C, h, w], h and w from 2 on.
        images: [B, N, C, h, w].
        target_sums: `window_sums(target)`, which several calls can share.

    Returns:
        [B, N, h, w].
    """
    sums = window_sums(target) if target_sums is None else target_sums
    return _Dissimilarity.apply(target, images, *sums)


@torch.no_grad()
def window_sums(images: Tensor) -> tuple[Tensor, Tensor]:
    """Sums of images [..., C, h, w] and of their squares over windows of 3 x 3 with a reflected border."""
    return _sum_windows(images), _sum_windows(images * images)


class _Dissimilarity(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, target: Tensor, images: Tensor, sums: Tensor, squares: Tensor) -> Tensor:
        result = torch.empty_like(images[:, :, 0])
        needs_gradient = ctx.needs_input_grad[1]
        partials = []
        for piece in _pieces(images):
            values, partial = _compare(
                target[piece[0]], images[piece], sums[piece[0]], squares[piece[0]], needs_gradient
            )
            result[piece] = values
            partials.append(partial)
        if needs_gradient:
            ctx.save_for_backward(target, images, *(tensor for partial in partials for tensor in partial))
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor, None, None]:
        target, images, *partials = ctx.saved_tensors
        result = torch.empty_like(images)
        for number, piece in enumerate(_pieces(images)):
            of_sum, of_square, of_product = partials[3 * number : 3 * number + 3]
            share = gradient[piece].unsqueeze(-3)
            total = _sum_windows_adjoint(of_square * share).mul_(images[piece])
            total += _sum_windows_adjoint(of_sum * share)
            total -= _sum_windows_adjoint(of_product * share).mul_(target[piece[0]])
            result[piece] = total
        return None, result, None, None


def _pieces(images: Tensor) -> list[tuple[slice, int]]:
    """Indices of images [B, N, C, h, w] that are computed at once: (snippets, source)."""
    batch, n_images = images.shape[:2]
    size = batch if images.device.type != "cpu" else max(1, _CACHED // images[0, 0].numel())
    return [(slice(start, start + size), source) for start in range(0, batch, size) for source in range(n_images)]


def _compare(
    x: Tensor, y: Tensor, sum_x: Tensor, sum_xx: Tensor, needs_gradient: bool
) -> tuple[Tensor, tuple[Tensor, ...]]:
    """The dissimilarity of images x and y [..., C, h, w], and its derivatives by the sums over y, y^2 and x y.

    With S for sums over windows, SSIM = l c, where l = (2 Sx Sy + C1) / (Sx^2 + Sy^2 + C1) compares brightness, and
    c = (2 (9 Sxy - Sx Sy) + C2) / (9 Sxx - Sx^2 + 9 Syy - Sy^2 + C2) compares contrast and structure.
    """
    sum_y, sum_yy, sum_xy = _sum_windows(y), _sum_windows(y * y), _sum_windows(x * y)
    product, square_x, square_y = sum_x * sum_y, sum_x * sum_x, sum_y * sum_y
    contrast = sum_xy.mul_(9).sub_(product).mul_(2).add_(_C2)
    inverse_contrast = sum_yy.add_(sum_xx).mul_(9).sub_(square_x).sub_(square_y).add_(_C2).reciprocal_()
    contrast *= inverse_contrast
    inverse_light = square_x.add_(square_y).add_(_C1).reciprocal_()
    light = product.mul_(2).add_(_C1).mul_(inverse_light)
    similarity = light * contrast
    values = (1 - similarity).mul_(0.5)
    if not needs_gradient:
        return values.clamp_(0, 1).mean(-3), ()
    weight = ((values >= 0) & (values <= 1)).to(values.dtype).div_(x.shape[-3])  # where the clamp passes the gradient
    similarity *= weight
    by_product = light.mul_(inverse_contrast).mul_(weight)
    by_sum = contrast.mul_(inverse_light).mul_(weight).neg_().add_(by_product).mul_(sum_x)
    by_square = similarity * inverse_contrast
    by_sum += inverse_light.sub_(inverse_contrast).mul_(similarity).mul_(sum_y)
    # d/dy of S(y^2) is 2 y, and of S(x y) is x.
    return values.clamp_(0, 1).mean(-3), (by_sum, by_square.mul_(9), by_product.mul_(9))


def _sum_windows(images: Tensor) -> Tensor:
    """Sums over windows of 3 x 3 with a reflected border, [..., h, w]. Adding slices is faster than pooling."""
    padded = functional.pad(images, (1, 1, 1, 1), mode="reflect")
    rows = padded[..., :-2, :] + padded[..., 1:-1, :]
    rows += padded[..., 2:, :]
    sums = rows[..., :-2] + rows[..., 1:-1]
    sums += rows[..., 2:]
    return sums


def _sum_windows_adjoint(gradient: Tensor) -> Tensor:
    """The adjoint of `_sum_windows`: the border's reflections are added to the pixels that they reflect."""
    padded = functional.pad(gradient, (1, 1, 1, 1))
    rows = padded[..., :-2, :] + padded[..., 1:-1, :]
    rows += padded[..., 2:, :]
    rows[..., 1, :] += padded[..., 1, :]
    rows[..., -2, :] += padded[..., -2, :]
    sums = rows[..., :-2] + rows[..., 1:-1]
    sums += rows[..., 2:]
    sums[..., 1] += rows[..., 1]
    sums[..., -2] += rows[..., -2]
    return sums
