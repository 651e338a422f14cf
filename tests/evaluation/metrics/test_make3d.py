"""Make3D's metrics: values by hand, what must not matter, and what is refused."""

import numpy as np
import pytest

from evaluation.metrics.make3d import METRICS, image_metrics, mean_metrics, nearest
from files.errors import InputError


def test_metrics_by_hand():
    # Two pixels, unscaled: d = 10, p = 20 and d = 40, p = 10.
    errors = image_metrics(np.array([[20.0, 10.0]]), np.array([[10.0, 40.0]]), scaling="none")
    assert errors["abs_rel"] == pytest.approx((10 / 10 + 30 / 40) / 2)
    assert errors["sq_rel"] == pytest.approx((100 / 10 + 900 / 40) / 2)
    assert errors["rmse"] == pytest.approx(np.sqrt((100 + 900) / 2))
    log2, log4 = 0.30103, 0.60206
    assert errors["log10"] == pytest.approx((log2 + log4) / 2, abs=1e-5)
    assert errors["rmse_log10"] == pytest.approx(np.sqrt((log2**2 + log4**2) / 2), abs=1e-5)
    assert errors["rmse_log"] == pytest.approx(errors["rmse_log10"] * 2.302585, rel=1e-6)
    assert errors["scale"] == 1
    assert errors["pixels"] == 2


def test_only_what_is_nearer_than_the_cap_counts_and_predictions_are_clipped_to_it():
    truth = np.array([[10.0, 69.9, 70.0, 81.0, 0.0]])
    errors = image_metrics(np.array([[10.0, 700.0, 1.0, 1.0, 1.0]]), truth, scaling="none")
    assert errors["pixels"] == 2
    assert errors["abs_rel"] == pytest.approx(0.1 / 69.9 / 2)
    assert image_metrics(np.array([[10.0, 700.0, 1.0, 1.0, 1.0]]), truth, cap=100, scaling="none")["pixels"] == 4


def test_medians_are_those_of_the_pixels_that_count():
    truth = np.array([[2.0, 4.0, 6.0, 80.0]])
    errors = image_metrics(np.array([[1.0, 2.0, 3.0, 1000.0]]), truth)
    assert errors["scale"] == 2
    assert [errors[name] for name in METRICS] == pytest.approx([0] * len(METRICS), abs=1e-12)


@pytest.mark.parametrize("resized", ["nearest", "depth", "disparity"])
def test_the_unit_does_not_matter_and_the_truth_is_perfect(resized):
    truth = np.random.default_rng(0).uniform(1, 69, (21, 305))
    predicted = np.random.default_rng(1).uniform(1, 69, (64, 208))
    one, seven = (image_metrics(factor * predicted, truth, resized=resized) for factor in (1, 7))
    for name in METRICS:
        assert seven[name] == pytest.approx(one[name], rel=1e-9)
        assert image_metrics(3 * truth, truth, resized=resized)[name] == pytest.approx(0, abs=1e-9)


def test_nearest_takes_the_upper_left_corner_as_opencv():
    image = np.arange(10.0)[None]
    # 10 to 4: floor(0, 2.5, 5, 7.5); 10 to 3: floor(0, 3.33, 6.67)
    assert nearest(image, (1, 4), np.zeros(4, int), np.arange(4)).tolist() == [0, 2, 5, 7]
    assert nearest(image, (1, 3), np.zeros(3, int), np.arange(3)).tolist() == [0, 3, 6]
    # and larger: 2 to 5: floor(0, 0.4, 0.8, 1.2, 1.6)
    assert nearest(image[:, :2], (1, 5), np.zeros(5, int), np.arange(5)).tolist() == [0, 0, 0, 1, 1]


def test_disparity_is_resized_as_disparity():
    # Between 10 and 40 in the middle: depth 25, disparity 1/16.
    predicted, truth = np.array([[10.0, 40.0]]), np.array([[0.0, 25.0, 0.0]])
    assert image_metrics(predicted, truth, resized="depth", scaling="none")["abs_rel"] == pytest.approx(0)
    assert image_metrics(predicted, truth, resized="disparity", scaling="none")["abs_rel"] == pytest.approx(9 / 25)


def test_bad_input():
    truth = np.full((2, 2), 5.0)
    with pytest.raises(InputError, match="number 3: 1 of 4 depths are not finite"):
        image_metrics(np.array([[1, np.nan], [1, 1]]), truth, where="number 3")
    with pytest.raises(InputError, match="number 3: the ground truth has no distance between 0 and 70 m"):
        image_metrics(np.ones((2, 2)), np.full((2, 2), 75.0), where="number 3")
    with pytest.raises(InputError, match="no image"):
        mean_metrics([])
    with pytest.raises(ValueError, match="resized is 'cubic'"):
        image_metrics(np.ones((2, 2)), truth, resized="cubic")


def test_the_mean_is_over_images():
    one = dict.fromkeys(METRICS, 1.0) | {"pixels": 1000}
    three = dict.fromkeys(METRICS, 3.0) | {"pixels": 1}
    assert mean_metrics([one, three]) == dict.fromkeys(METRICS, 2.0)
