import numpy as np
import pytest
import torch

from geometry.structural_similarity import dissimilarity, window_sums


def slow_dissimilarity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """clamp((1 - SSIM) / 2, 0, 1) of two grey images, window by window."""
    x, y = (np.pad(image, 1, mode="reflect") for image in (x, y))
    result = np.empty((x.shape[0] - 2, x.shape[1] - 2))
    for row, column in np.ndindex(result.shape):
        a, b = x[row : row + 3, column : column + 3], y[row : row + 3, column : column + 3]
        covariance = ((a - a.mean()) * (b - b.mean())).mean()
        above = (2 * a.mean() * b.mean() + 0.01**2) * (2 * covariance + 0.03**2)
        below = (a.mean() ** 2 + b.mean() ** 2 + 0.01**2) * (a.var() + b.var() + 0.03**2)
        result[row, column] = min(max((1 - above / below) / 2, 0), 1)
    return result


def test_dissimilarity_window_by_window():
    target, images = torch.rand(2, 3, 7, 9).double(), torch.rand(2, 2, 3, 7, 9).double()
    images[0, 0] = 1 - target[0]  # negative correlation, up to the clamp
    got = dissimilarity(target, images)
    assert got.shape == (2, 2, 7, 9)
    for b, n in np.ndindex(2, 2):
        expected = [slow_dissimilarity(target[b, c].numpy(), images[b, n, c].numpy()) for c in range(3)]
        np.testing.assert_allclose(got[b, n].numpy(), np.mean(expected, 0), atol=1e-12)
    assert dissimilarity(target, target[:, None]).abs().max() < 1e-12


@pytest.mark.parametrize(("height", "width"), [(5, 6), (2, 2), (3, 2), (2, 7)])
def test_the_gradient(height, width):
    target, images = torch.rand(2, 3, height, width).double(), torch.rand(2, 2, 3, height, width).double()
    images[0, 0] = 1 - target[0]  # beyond the clamp in places
    assert torch.autograd.gradcheck(lambda images: dissimilarity(target, images), images.requires_grad_())


def test_shared_sums_of_the_target_change_nothing():
    target, images = torch.rand(2, 3, 8, 9), torch.rand(2, 2, 3, 8, 9)
    assert torch.equal(dissimilarity(target, images), dissimilarity(target, images, window_sums(target)))


def test_flat_images_in_float32():
    """Windows without contrast, where variances are differences of nearly equal numbers."""
    for value in (0.0, 0.3, 1.0):
        flat = torch.full((1, 3, 6, 6), value)
        images = flat[:, None].clone().requires_grad_()
        result = dissimilarity(flat, images)
        assert result.abs().max() < 2e-3
        result.sum().backward()
        assert images.grad.isfinite().all()
