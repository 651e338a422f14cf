"""Predicted depth of many images, by many protocols at once, from one set of predictions."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from path import Path
from tqdm import tqdm

from evaluation.ground_truth import read_truth
from evaluation.metrics.depth import (
    KnownDepth,
    Neighbours,
    best_constant,
    check_counted,
    check_prediction,
    constant_weights,
    counted_pixels,
    find_neighbours,
    median_ratio,
    resized_depth,
    scaled_errors,
)
from evaluation.metrics.depth_protocols import DepthTest
from evaluation.speed_scale import SpeedScale
from files.parallel import in_parallel


@dataclass(frozen=True)
class ImageSet:
    """The images of a list whose files are all there, and for each of the others the first file that it lacks."""

    title: str  # the list's file
    listed: list[str]
    found: list[str]
    missing: list[str]

    @cached_property
    def places(self) -> dict[str, int]:
        """The images that count, each with its index in the list."""
        listed = {name: index for index, name in enumerate(self.listed)}
        return {name: listed[name] for name in self.found}


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds."""

    file: Path
    depth: Mapping[str, np.ndarray]  # [h, w] by the image's name
    about: dict

    @cached_property
    def places(self) -> dict[str, int]:
        """The index of each image in the file."""
        return {name: index for index, name in enumerate(self.depth)}


Sets = dict[tuple[str, str], ImageSet]  # by images and ground truth, as in `DepthTest`
ImageScores = dict[str, float]  # the metrics, `scale` and `ratio` (that of the medians), and the number of `pixels`
Scores = dict[str, dict[str, list[ImageScores]]]  # by test and method ("network" or a baseline), of each image


@dataclass(frozen=True)
class Task:
    """Everything that the score of an image depends on."""

    tests: dict[str, DepthTest]  # by name
    sets: Sets  # the images of each test
    predictions: Predictions
    baselines: dict[str, np.ndarray]  # by name: predicted depth [h, w] of every image
    speed_scales: dict[str, dict[str, SpeedScale]]  # by test and image, for the tests that are scaled by the speed
    root: Path  # the folder that the images' names are relative to


@dataclass(frozen=True)
class Compared:
    """The depths of an image that one test compares."""

    test: str
    truth: np.ndarray  # [n], the true depths that count
    depths: dict[str, np.ndarray]  # by method ("network" or a baseline): the predicted depths [n], not scaled


def score(
    tests: dict[str, DepthTest],
    sets: Sets,
    predictions: Predictions,
    mean_map: np.ndarray | None,
    speed_scales: dict[str, dict[str, SpeedScale]],
    root: Path,
    workers: int,
    quiet: bool = False,
) -> Scores:
    """Metrics of each image by each test, in the order of the test's list.

    Args:
        tests: by name.
        sets: the images of each test.
        mean_map: of the training set [h, w] in metres, the baseline; None leaves it out.
        speed_scales: by test and image, for the tests that are scaled by the speed.
        root: the folder that the images' names are relative to.
        workers: threads; each makes an image's ground truth, scores it by all tests, and lets it go.
        quiet: without a progress bar.
    """
    baselines = {"best_constant": np.ones((1, 1))} | ({} if mean_map is None else {"mean_map": mean_map})
    task = Task(tests, sets, predictions, baselines, speed_scales, root)
    names = list(dict.fromkeys(name for images in sets.values() for name in images.found))
    scales = _scales_of_sets(task, names, workers, quiet)
    scored = in_parallel(lambda name: _score_image(task, name, scales), names, workers)
    progress = tqdm(scored, total=len(names), desc="scoring", unit="image", disable=quiet)
    by_name = dict(zip(names, progress, strict=True))
    return {
        name: {
            method: [by_name[image][name][method] for image in sets[test.images, test.ground_truth].found]
            for method in ["network", *baselines]
        }
        for name, test in tests.items()
    }


def _scales_of_sets(task: Task, names: list[str], workers: int, quiet: bool) -> dict[str, dict[str, float]]:
    """By test and method, the scale that needs to know all images first: one for the whole set, or the best constant.

    Tests with a scale for each image are left out.
    """
    unscaled = {name: test for name, test in task.tests.items() if test.protocol.scaling != "median"}
    if not unscaled:
        return {}

    def statistics(name: str) -> dict[str, tuple[dict[str, float], np.ndarray]]:
        return {
            item.test: (
                {method: median_ratio(item.truth, depth) for method, depth in item.depths.items()},
                constant_weights(item.truth),
            )
            for item in _compare(task, name, unscaled)
        }

    found = in_parallel(statistics, names, workers)
    passed = list(tqdm(found, total=len(names), desc="finding scales", unit="image", disable=quiet))
    scales = {}
    for name, test in unscaled.items():
        of_images = [image[name] for image in passed if name in image]
        scales[name] = dict.fromkeys(of_images[0][0], 1.0)
        if test.protocol.scaling == "global":
            for method in scales[name]:
                scales[name][method] = float(np.median([ratios[method] for ratios, _ in of_images]))
        # Whatever the predictions are scaled by, no other constant has a lower Abs Rel.
        scales[name]["best_constant"] = best_constant(np.sum([weights for _, weights in of_images], axis=0))
    return scales


def _score_image(task: Task, name: str, scales: dict[str, dict[str, float]]) -> dict[str, dict[str, ImageScores]]:
    """Metrics of an image by test and method."""
    result: dict[str, dict[str, ImageScores]] = {}
    for item in _compare(task, name, task.tests):
        protocol = task.tests[item.test].protocol
        result[item.test] = {}
        middle = np.median(item.truth)
        for method, depth in item.depths.items():
            ratio = float(middle / np.median(depth))
            if protocol.scaling == "median":
                scale = ratio
            elif protocol.scaling == "speed" and method == "network":
                scale = task.speed_scales[item.test][name].scale
            else:
                scale = scales[item.test][method]
            result[item.test][method] = scaled_errors(item.truth, depth, scale, protocol.cap) | {"ratio": ratio}
    return result


def _compare(task: Task, name: str, tests: dict[str, DepthTest]) -> Iterator[Compared]:
    """The depths of an image that the tests compare. What several tests share is computed once."""
    where = f"{task.predictions.file}, prediction {task.predictions.places[name]} ({name})"
    predicted = task.predictions.depth[name]
    check_prediction(predicted, where)
    methods = {"network": predicted} | task.baselines
    truths: dict[str, KnownDepth] = {}
    counted: dict[tuple, np.ndarray] = {}
    resized: dict[tuple, np.ndarray] = {}
    neighbours: dict[tuple, Neighbours] = {}
    for test_name, test in tests.items():
        places = task.sets[test.images, test.ground_truth].places
        if name not in places:
            continue
        kind, protocol = test.ground_truth, test.protocol
        if kind not in truths:
            truths[kind] = read_truth(task.root, name, kind, places[name])
        pixels = (kind, protocol.crop, protocol.cap, protocol.beyond_cap)
        if pixels not in counted:
            counted[pixels] = counted_pixels(truths[kind], protocol)
            check_counted(counted[pixels], protocol, where)
        depths = {}
        for method, depth in methods.items():
            key = (kind, protocol.resized, method)
            if key not in resized:
                size = (kind, depth.shape)
                if depth.size > 1 and size not in neighbours:
                    truth = truths[kind]
                    neighbours[size] = find_neighbours(depth.shape, truth.shape, truth.rows, truth.columns)
                resized[key] = resized_depth(depth, truths[kind], protocol.resized, neighbours.get(size))
            depths[method] = resized[key][counted[pixels]]
        yield Compared(test_name, truths[kind].depth[counted[pixels]], depths)
