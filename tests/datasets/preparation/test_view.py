"""The view of an image: what is cropped, resized and undistorted shows points where its K says."""

import cv2
import numpy as np
import pytest

from datasets.formats.camera_files import FISHEYE, RADIAL_TANGENTIAL, Calibration
from datasets.preparation.view import (
    default_size,
    distort,
    fit_calibration,
    focal_length,
    make_view,
    simple_calibration,
)
from files.errors import InputError

K = np.array([[300.0, 0, 165], [0, 310, 118], [0, 0, 1]])
SIZE = (320, 240)
BARREL = np.array([-0.28, 0.07, 0.001, -0.002])
PINCUSHION = np.array([0.25, 0.05, 0, 0])


def lens(model, distortion, k=K):
    return Calibration(k, SIZE, model, np.array(distortion, dtype=float), "a lens")


def dots(pixels, size=SIZE):
    """A picture with a soft dot at each pixel (x, y)."""
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    picture = sum(np.exp(-((x - u) ** 2 + (y - v) ** 2) / 8) for u, v in pixels)
    return np.repeat((255 * picture).clip(0, 255).astype(np.uint8)[..., None], 3, axis=2)


def centre(picture, near, radius):
    """The centre of brightness around a pixel."""
    x, y = np.meshgrid(np.arange(picture.shape[1]), np.arange(picture.shape[0]))
    weight = picture[..., 0].astype(float) * ((x - near[0]) ** 2 + (y - near[1]) ** 2 < radius**2)
    return np.array([(weight * x).sum(), (weight * y).sum()]) / weight.sum()


@pytest.mark.parametrize(
    "calibration",
    [
        lens("pinhole", []),
        lens(RADIAL_TANGENTIAL, BARREL),
        lens(RADIAL_TANGENTIAL, PINCUSHION),
        lens(FISHEYE, [0.02, -0.01, 0.003, 0]),
    ],
    ids=["pinhole", "barrel", "pincushion", "fisheye"],
)
def test_points_appear_where_the_new_k_projects_them(calibration):
    """A dot at the place where the lens shows a ray is found where the prepared image's K projects the ray."""
    rays = np.array([[-0.2, -0.15], [0.25, -0.1], [-0.1, 0.2], [0.2, 0.15], [0, 0.02]])
    seen = distort(rays, calibration) if calibration.model != "pinhole" else rays @ np.diag(np.diag(K)[:2]) + K[:2, 2]
    view = make_view(calibration, (20, 10, 16, 12)).resized(192, 160)
    prepared, k = view.image(dots(seen)), view.intrinsics()
    assert prepared.shape == (160, 192, 3)
    for expected in rays @ k[:2, :2].T + k[:2, 2]:
        assert np.abs(centre(prepared, expected, 7) - expected).max() < 0.1


def test_distort_is_opencvs_formula_written_out():
    x, y = rays = np.array([[0.3], [-0.2]])
    k1, k2, p1, p2 = BARREL
    r2 = x**2 + y**2
    radial = 1 + k1 * r2 + k2 * r2**2
    expected = [
        K[0, 0] * (x * radial + 2 * p1 * x * y + p2 * (r2 + 2 * x**2)) + K[0, 2],
        K[1, 1] * (y * radial + p1 * (r2 + 2 * y**2) + 2 * p2 * x * y) + K[1, 2],
    ]
    np.testing.assert_allclose(distort(rays.T, lens(RADIAL_TANGENTIAL, BARREL)), np.array(expected).T, atol=1e-9)
    r = np.sqrt(r2)
    theta = np.arctan(r)
    bent = theta * (1 + 0.02 * theta**2 - 0.01 * theta**4 + 0.003 * theta**6)
    expected = np.array([K[0, 0] * x * bent / r + K[0, 2], K[1, 1] * y * bent / r + K[1, 2]]).T
    np.testing.assert_allclose(distort(rays.T, lens(FISHEYE, [0.02, -0.01, 0.003, 0])), expected, atol=1e-9)


@pytest.mark.parametrize("coefficients", [BARREL, PINCUSHION])
def test_undistorted_pictures_have_no_empty_border_and_lose_no_more_than_needed(coefficients):
    calibration = lens(RADIAL_TANGENTIAL, coefficients)
    view = make_view(calibration)
    white = np.full((SIZE[1], SIZE[0], 3), 255, np.uint8)
    assert view.cropped(white).min() == 255
    wider = make_view(calibration)
    object.__setattr__(wider, "zoom", 0.98 * view.zoom)
    assert wider.cropped(white).min() < 255


def test_the_pinhole_view_is_the_image_itself_and_keeps_the_aspect():
    image = np.random.default_rng(0).integers(0, 255, (240, 320, 3), dtype=np.uint8)
    view = make_view(lens("pinhole", []))
    assert (view.image(image) == image).all()
    np.testing.assert_allclose(view.intrinsics(), K)
    small = view.resized(160, 96)
    assert small.box == (0, 24, 320, 216)
    k = small.intrinsics()
    assert k[0, 0] == K[0, 0] / 2
    assert k[1, 2] == pytest.approx((K[1, 2] - 24 + 0.5) / 2 - 0.5)
    expected = cv2.resize(image[24:216], (160, 96), interpolation=cv2.INTER_AREA)
    assert np.abs(small.image(image).astype(int) - expected).max() <= 1  # halves are rounded otherwise


def test_calibrations_of_another_size():
    fitted = fit_calibration(lens("pinhole", []), 640, 480)
    np.testing.assert_allclose(fitted.intrinsics[:2], [[600, 0, 330.5], [0, 620, 236.5]])
    assert fitted.size == (640, 480)
    with pytest.raises(InputError, match="calibrated for 320 x 240 pixels, the images have 320 x 180, another aspect;"):
        fit_calibration(lens("pinhole", []), 320, 180)
    with pytest.raises(InputError, match="is one of them turned"):
        fit_calibration(lens("pinhole", []), 240, 320)
    without_size = Calibration(K, None, "pinhole", np.zeros(0), "calib.txt")
    assert fit_calibration(without_size, 320, 240).size == (320, 240)
    with pytest.raises(InputError, match=r"calib\.txt: not a camera of 1920 x 1080 images"):
        fit_calibration(without_size, 1920, 1080)


def test_lenses_and_crops_that_leave_nothing_are_refused():
    with pytest.raises(InputError, match="folds 320 x 240 images"):
        make_view(lens(RADIAL_TANGENTIAL, [-3.5, 0, 0, 0]))
    with pytest.raises(InputError, match="the crop leaves 20 x 240 of 320 x 240 pixels"):
        make_view(lens("pinhole", []), (300, 0, 0, 0))


def test_sizes_and_angles():
    assert default_size(1920, 1080) == (416, 224)
    assert default_size(1080, 1920) == (224, 416)
    assert default_size(1242, 375) == (416, 128)
    assert default_size(5000, 10) == (416, 32)
    assert focal_length(90, 100) == pytest.approx(50)
    k = simple_calibration(50, 100, 60, "x").intrinsics
    assert (k[0, 2], k[1, 2]) == (49.5, 29.5)
