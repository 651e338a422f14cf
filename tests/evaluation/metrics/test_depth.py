import time

import numpy as np
import pytest

from evaluation.metrics.depth import (
    METRICS,
    RESIZED,
    DepthProtocol,
    best_constant,
    constant_weights,
    counted_pixels,
    depth_errors,
    image_metrics,
    known_depth,
    mean_metrics,
    median_ratio,
    sample_resized,
    scaled_errors,
)
from files.errors import InputError
from tests.oracles import depth as depth_oracle
from tests.oracles import load, sources

# Two pixels: 2 m predicted as 3 m, 8 m as 8.5 m.
TRUTH, PREDICTED = np.array([2.0, 8.0]), np.array([3.0, 8.5])


@pytest.mark.parametrize(
    ("metric", "by_hand"),
    [
        ("abs_rel", (1 / 2 + 0.5 / 8) / 2),  # 0.28125
        ("sq_rel", (1 / 2 + 0.25 / 8) / 2),  # 0.265625
        ("rmse", 0.7905694150420949),  # sqrt((1 + 0.25) / 2)
        ("rmse_log", 0.2898942),  # sqrt((0.4054651^2 + 0.0606246^2) / 2)
        ("a1", 0.5),  # factors 1.5 and 1.0625 against 1.25,
        ("a2", 1.0),  # 1.5625
        ("a3", 1.0),  # and 1.953125
    ],
)
def test_metrics_by_hand(metric, by_hand):
    assert depth_errors(TRUTH, PREDICTED)[metric] == pytest.approx(by_hand, abs=1e-7)


def test_accuracies_count_strictly_below_the_threshold_on_both_sides():
    truth = np.array([1.0, 1.0, 1.0, 1.5, 1.5625])
    predicted = np.array([1.25, 1.5625, 1.953125, 1.0, 1.0])  # factors 1.25, 1.25^2, 1.25^3, 1.5, 1.25^2
    errors = depth_errors(truth, predicted)
    assert (errors["a1"], errors["a2"], errors["a3"]) == (0.0, 0.4, 0.8)


@pytest.fixture
def scene():
    """A sparse truth at 60 x 200 and a prediction at 20 x 50."""
    random = np.random.default_rng(0)
    truth = np.where(random.random((60, 200)) < 0.1, random.uniform(1, 100, (60, 200)), 0)
    return random.uniform(1, 60, (20, 50)), truth


@pytest.mark.parametrize("resized", ["depth", "disparity"])
def test_median_scaling_hides_any_factor(scene, resized):
    predicted, truth = scene
    protocol = DepthProtocol(resized=resized)
    one, seven = (image_metrics(factor * predicted, truth, protocol) for factor in (1, 7))
    for name in METRICS:
        assert seven[name] == pytest.approx(one[name], rel=1e-6)
    assert seven["scale"] == pytest.approx(one["scale"] / 7)
    unscaled = DepthProtocol(scaling="none", resized=resized)
    assert (
        image_metrics(7 * predicted, truth, unscaled)["abs_rel"]
        > 2 * image_metrics(predicted, truth, unscaled)["abs_rel"]
    )


@pytest.mark.parametrize("scaling", ["median", "none"])
def test_ground_truth_as_prediction_is_perfect(scene, scaling):
    dense = np.random.default_rng(1).uniform(1, 79, scene[1].shape)
    truth = np.where(scene[1] > 0, dense, 0)
    metrics = image_metrics(dense, truth, DepthProtocol(scaling=scaling))
    assert [metrics[name] for name in METRICS] == pytest.approx([0, 0, 0, 0, 1, 1, 1], abs=1e-12)


def test_scaling_comes_before_clipping():
    # Predicted 1, 2, 40 against 10, 20, 79: scale 10, so 400 m is clipped to the cap and 10 and 20 are exact.
    truth, predicted = np.array([[10.0, 20.0, 79.0]]), np.array([[1.0, 2.0, 40.0]])
    metrics = image_metrics(predicted, truth, DepthProtocol(crop="none"))
    assert metrics["scale"] == 10
    assert metrics["abs_rel"] == pytest.approx((80 - 79) / 79 / 3)
    assert metrics["pixels"] == 3


def counted(truth, **protocol):
    """Rows and columns of the pixels that count."""
    known = known_depth(truth)
    pixels = counted_pixels(known, DepthProtocol(**protocol))
    return known.rows[pixels], known.columns[pixels]


def test_the_cap_leaves_far_ground_truth_out():
    truth = np.array([[0.0, 0.001, 10.0, 49.9, 50.0, 79.9, 80.0]])
    for cap, expected in ((50.0, [2, 3]), (80.0, [2, 3, 4, 5])):
        assert counted(truth, cap=cap, crop="none")[1].tolist() == expected
    assert counted(truth, cap=50, crop="none", beyond_cap=True)[1].tolist() == [2, 3, 4, 5, 6]


def test_ground_truth_beyond_the_cap_meets_a_clipped_prediction():
    # 100 m, predicted as 100 m, is scored as 80 m; the median ratio of 10, 100 against 10, 100 is 1.
    protocol = DepthProtocol(crop="none", beyond_cap=True)
    truth = np.array([[10.0, 100.0]])
    assert image_metrics(truth, truth, protocol)["abs_rel"] == pytest.approx(0.2 / 2)


@pytest.mark.parametrize(
    ("crop", "borders"), [("garg", (153, 370, 44, 1196)), ("eigen", (124, 341, 44, 1196)), ("none", (0, 374, 0, 1241))]
)
def test_crops_have_the_published_borders(crop, borders):
    rows, columns = counted(np.ones((375, 1242)), crop=crop)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == borders
    assert len(rows) == (borders[1] - borders[0] + 1) * (borders[3] - borders[2] + 1)


def test_garg_crop_of_the_size_that_it_was_made_for():
    # 151.0000007, 366.9999993, 43.99999704 and 1180.00000296: two borders are a pixel off what was meant, as published.
    rows, columns = counted(np.ones((370, 1224)), crop="garg")
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (151, 365, 43, 1179)


def test_scales_by_hand():
    truth, predicted = np.array([2.0, 4.0, 9.0]), np.array([1.0, 1.0, 3.0])
    assert median_ratio(truth, predicted) == 4
    scaled = scaled_errors(truth, predicted, 2.0, cap=80)  # 2, 2, 6
    assert scaled["abs_rel"] == pytest.approx((0 + 2 / 4 + 3 / 9) / 3)
    assert (scaled["scale"], scaled["pixels"]) == (2, 3)


def test_the_scale_of_the_whole_set_comes_from_outside(scene):
    predicted, truth = scene
    protocol = DepthProtocol(scaling="global")
    given = image_metrics(predicted, truth, protocol, scale=3.0)
    unscaled = image_metrics(3 * predicted, truth, DepthProtocol(scaling="none"))
    assert [given[name] for name in METRICS] == pytest.approx([unscaled[name] for name in METRICS], rel=1e-12)
    with pytest.raises(ValueError, match="scale"):
        image_metrics(predicted, truth, protocol)


def test_best_constant_by_hand():
    # Abs Rel of c on one image of 1, 2, 10: weights 1, 1/2, 1/10, whose weighted median is 1.
    assert best_constant(constant_weights(np.array([1.0, 2.0, 10.0]))) == pytest.approx(1, rel=1e-3)
    # Images count the same, whatever their pixels: 4, 4, 4 (weight 1/4 in all) against 3 (weight 1/3).
    weights = constant_weights(np.array([4.0, 4.0, 4.0])) + constant_weights(np.array([3.0]))
    assert best_constant(weights) == pytest.approx(3, rel=1e-3)


def test_no_constant_is_better_than_the_best():
    random = np.random.default_rng(0)
    images = [random.uniform(1, 80, count) for count in (500, 30, 200)]
    best = best_constant(sum(constant_weights(truth) for truth in images))

    def abs_rel(constant):
        return mean_metrics([scaled_errors(truth, np.full(len(truth), constant), 1, 80) for truth in images])["abs_rel"]

    assert all(abs_rel(best) <= abs_rel(constant) * (1 + 1e-6) for constant in np.geomspace(1, 80, 400))


def test_resize_by_hand():
    # 2 pixels to 4: positions -0.25, 0.25, 0.75, 1.25, so the border is repeated and the middle is mixed 3:1.
    image = np.array([[1.0, 5.0]])
    columns = np.arange(4)
    assert sample_resized(image, (1, 4), np.zeros(4, int), columns).tolist() == [1, 2, 4, 5]
    # 4 to 2: positions 0.5 and 2.5, halfway between neighbours.
    assert sample_resized(np.array([[1.0, 3, 5, 9]]), (1, 2), np.zeros(2, int), np.arange(2)).tolist() == [2, 7]


def test_resizing_disparity_is_not_resizing_depth():
    # Depths 1 and 4 m, at the quarter point: 1.75 by depth, 1 / (0.75 + 0.25 / 4) by disparity.
    predicted, truth = np.array([[1.0, 4.0]]), np.array([[0.0, 1.0, 0.0, 0.0]])
    for resized, depth in (("depth", 1.75), ("disparity", 1 / 0.8125)):
        protocol = DepthProtocol(crop="none", scaling="none", resized=resized)
        assert image_metrics(predicted, truth, protocol)["abs_rel"] == pytest.approx(depth - 1)


def test_mean_is_over_images_not_over_pixels():
    perfect = depth_errors(np.ones(1000), np.ones(1000))
    wrong = depth_errors(np.ones(1), np.full(1, 2.0))
    assert mean_metrics([perfect, wrong])["abs_rel"] == 0.5
    with pytest.raises(InputError, match="no image"):
        mean_metrics([])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 0.0, -1.0])
def test_a_bad_prediction_is_named(scene, bad):
    predicted, truth = scene
    predicted[3, 7] = bad
    with pytest.raises(InputError, match=r"prediction 17: 1 of 1000 depths .* at row 3, column 7"):
        image_metrics(predicted, truth, DepthProtocol(), "prediction 17")


@pytest.mark.parametrize("bad", [1e30, 1e-30, 5e-324, 1e300])
def test_a_depth_whose_square_or_inverse_overflows_is_named(scene, bad):
    predicted, truth = scene
    predicted[3, 7] = bad
    with pytest.raises(InputError, match=r"1 of 1000 depths are outside 1e-20 to 1e\+20, the first is .* at row 3"):
        image_metrics(predicted, truth, DepthProtocol(), "prediction 17")


@pytest.mark.parametrize("resized", RESIZED)
def test_depths_of_the_largest_and_the_smallest_unit_have_figures(scene, resized):
    predicted, truth = scene
    expected = image_metrics(predicted, truth, DepthProtocol(resized=resized))
    for unit in (1e18, 1e-18):
        found = image_metrics((unit * predicted).astype(np.float32), truth, DepthProtocol(resized=resized))
        assert found["abs_rel"] == pytest.approx(expected["abs_rel"], rel=1e-5)


def test_an_image_without_ground_truth_is_an_error(scene):
    truth = np.zeros_like(scene[1])
    truth[:10] = 5.0  # sky: outside the crop
    with pytest.raises(InputError, match="prediction 4: the ground truth has no depth"):
        image_metrics(scene[0], truth, DepthProtocol(), "prediction 4")
    assert image_metrics(scene[0], truth, DepthProtocol(crop="none"))["pixels"] == 2000


@pytest.mark.parametrize("wrong", [{"crop": "grag"}, {"scaling": "mean"}, {"resized": "log"}, {"cap": 0.0}])
def test_an_unknown_protocol_is_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        DepthProtocol(**wrong)


@pytest.fixture(scope="module", params=sources("depth_metrics"))
def reference(request):
    """Predictions, sparse ground truth by its kind, and the figures of each protocol."""
    figures = load("depth_metrics", request.param, depth_oracle)
    if request.param == "reference":
        stored = np.load(request.getfixturevalue("shared") / "reference/ground_truth_depth.npz")
        for kind in ("camera_z", "velodyne_x"):
            figures[kind] = np.zeros((3, 375, 1242), np.float32)
            for truth, frame in zip(figures[kind], figures["frames"], strict=True):
                row, column, depth = (stored[f"{frame}_{kind}_{part}"] for part in ("row", "col", "depth"))
                truth[row, column] = depth
    return figures


@pytest.mark.parametrize(
    ("key", "kind", "protocol"),
    [
        ("depth_cap80_camera_z", "camera_z", DepthProtocol()),
        ("depth_cap80_velodyne_x", "velodyne_x", DepthProtocol()),
        ("depth_cap50_camera_z", "camera_z", DepthProtocol(cap=50)),
        ("depth_cap50_velodyne_x", "velodyne_x", DepthProtocol(cap=50)),
        ("depth_cap80_velodyne_x_disparity_resized", "velodyne_x", DepthProtocol(resized="disparity")),
    ],
)
def test_published_protocol(reference, key, kind, protocol):
    per_image = [
        image_metrics(predicted, truth, protocol)
        for truth, predicted in zip(reference[kind], reference["predicted_depth"], strict=True)
    ]
    mean = mean_metrics(per_image)
    # Accuracies are counts and agree exactly. The rest agrees to the rounding of the published float32 arithmetic,
    # which these figures were made with: 3e-7 relative.
    assert [mean[name] for name in METRICS] == pytest.approx(reference[key], rel=3e-7)
    assert [mean[name] for name in METRICS[4:]] == pytest.approx(reference[key][4:], abs=1e-12)


def test_an_image_takes_a_few_milliseconds():
    random = np.random.default_rng(0)
    truth = np.where(random.random((375, 1242)) < 0.04, random.uniform(1, 80, (375, 1242)), 0)  # as of a LiDAR
    predicted = random.uniform(1, 80, (128, 416)).astype(np.float32)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        image_metrics(predicted, truth, DepthProtocol())
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.02  # 3 ms; a full-size resize by fancy indexing alone takes longer than this limit
