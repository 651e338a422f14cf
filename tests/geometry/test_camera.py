import pytest
import torch

from geometry.camera import (
    crop_intrinsics,
    flip_intrinsics,
    intrinsics_from_fov,
    invert_intrinsics,
    pixel_grid,
    project,
    scale_intrinsics,
    unproject,
)

HEIGHT, WIDTH = 6, 9
K = torch.tensor([[[8.0, 0.3, 4.1], [0, 7.0, 2.2], [0, 0, 1]], [[5.0, 0, 3.0], [0, 6.0, 3.5], [0, 0, 1]]]).double()


def test_pixel_grid_runs_along_the_rows():
    grid = pixel_grid(2, 3, torch.zeros(1, dtype=torch.float64))
    assert grid.dtype == torch.float64
    assert grid.tolist() == [[0, 1, 2, 0, 1, 2], [0, 0, 0, 1, 1, 1], [1] * 6]


def test_worked_example():
    intrinsics = torch.tensor([[[2.0, 0, 3], [0, 2, 0], [0, 0, 1]]])
    points = unproject(torch.full((1, 1, 1, 6), 4.0), intrinsics)
    assert points[0, :, 0, 5].tolist() == [4, 0, 4]
    assert project(torch.tensor([[4.0, 0, 4]])[..., None], intrinsics).flatten().tolist() == [5, 0]


def test_project_undoes_unproject():
    depth = torch.rand(2, 1, HEIGHT, WIDTH, dtype=torch.float64) * 50 + 0.1
    points = unproject(depth, K)
    assert torch.equal(points[:, 2:], depth)  # z is the depth, not the ray's length
    expected = pixel_grid(HEIGHT, WIDTH, depth)[:2].view(1, 2, HEIGHT, WIDTH).expand(2, -1, -1, -1)
    torch.testing.assert_close(project(points, K), expected)


def test_the_closed_inverse_is_the_inverse():
    torch.manual_seed(1)
    general = torch.randn(2, 5, 3, 3, dtype=torch.float64).triu() + 3 * torch.eye(3).double()
    for intrinsics in (K, general, flip_intrinsics(K, WIDTH)):
        intrinsics = intrinsics.detach().requires_grad_()
        inverse, reference = invert_intrinsics(intrinsics), torch.linalg.inv(intrinsics)
        torch.testing.assert_close(inverse, reference, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(inverse @ intrinsics, torch.eye(3).double().expand_as(inverse))
        cotangent = torch.randn_like(inverse).triu()
        gradients = [torch.autograd.grad(result, intrinsics, cotangent)[0].triu() for result in (inverse, reference)]
        torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-12)
    assert invert_intrinsics(torch.tensor([[2.0, 0, 3], [0, 2, 0], [0, 0, 1]])).tolist() == [
        [0.5, 0, -1.5],
        [0, 0.5, 0],
        [0, 0, 1],
    ]


def test_k_follows_its_image():
    """A point's pixel in the changed image is its old pixel, changed alike."""
    points = torch.randn(2, 3, 20, dtype=torch.float64)
    points[:, 2] = points[:, 2].abs() + 1
    x, y = project(points, K).unbind(1)
    for scale_x, scale_y in ((0.5, 0.25), (torch.tensor([1.5, 2.0]).double(), torch.tensor([1.0, 0.3]).double())):
        scaled = project(points, scale_intrinsics(K, scale_x, scale_y))
        sx, sy = (torch.as_tensor(s).expand(2)[:, None] for s in (scale_x, scale_y))
        torch.testing.assert_close(scaled, torch.stack([(x + 0.5) * sx - 0.5, (y + 0.5) * sy - 0.5], 1))
    cropped = project(points, crop_intrinsics(K, 3, torch.tensor([1.5, 0.0]).double()))
    torch.testing.assert_close(cropped, torch.stack([x - 3, y - torch.tensor([[1.5], [0]]).double()], 1))
    mirrored = points * torch.tensor([-1.0, 1, 1]).double()[:, None]
    flipped = project(mirrored, flip_intrinsics(K, WIDTH))
    torch.testing.assert_close(flipped, torch.stack([WIDTH - 1 - x, y], 1))


def test_numbers_worked_by_hand():
    intrinsics = torch.tensor([[8.0, 0, 3.5], [0, 8, 1.5], [0, 0, 1]])  # the centre of an image of 8 x 4
    assert scale_intrinsics(intrinsics, 0.5, 0.5).tolist() == [[4, 0, 1.5], [0, 4, 0.5], [0, 0, 1]]
    assert crop_intrinsics(intrinsics, 1, 2).tolist() == [[8, 0, 2.5], [0, 8, -0.5], [0, 0, 1]]
    assert flip_intrinsics(intrinsics, 8).tolist() == intrinsics.tolist()
    assert flip_intrinsics(crop_intrinsics(intrinsics, 1, 0), 7).tolist()[0] == [8, 0, 3.5]


def test_a_field_of_view_reaches_from_edge_to_edge():
    torch.testing.assert_close(
        intrinsics_from_fov(90, 4, 8), torch.tensor([[4, 0, 3.5], [0, 4, 1.5], [0, 0, 1]]).double()
    )
    k = intrinsics_from_fov(60, 48, 100)
    left, right = (torch.linalg.inv(k) @ torch.tensor([x, 23.5, 1]).double() for x in (-0.5, 99.5))
    angle = torch.atan2(right[0], right[2]) - torch.atan2(left[0], left[2])
    assert torch.rad2deg(angle).item() == pytest.approx(60)
    assert left[1].item() == pytest.approx(0)


@pytest.mark.parametrize(
    "call",
    [
        lambda: unproject(torch.ones(1, 4, 4), torch.eye(3)[None]),
        lambda: unproject(torch.ones(1, 1, 4, 4), torch.eye(4)[None]),
        lambda: project(torch.ones(1, 2, 4), torch.eye(3)[None]),
        lambda: scale_intrinsics(torch.eye(4), 1, 1),
    ],
)
def test_wrong_shapes_say_got_and_expected(call):
    with pytest.raises(ValueError, match=r"got shape .* expected"):
        call()
