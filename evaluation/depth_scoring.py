"""Predicted depth of many images, by many protocols at once, from one set of predictions."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

import numpy as np
from path import Path
from tqdm import tqdm

from evaluation.ground_truth import describe_truth, read_truth
from evaluation.metrics.depth import (
    METRICS,
    KnownDepth,
    best_constant,
    check_counted,
    check_prediction,
    constant_weights,
    counted_pixels,
    mean_metrics,
    median_ratio,
    resized_depth,
    scaled_errors,
)
from evaluation.metrics.depth_protocols import DepthTest
from evaluation.speed_scale import SpeedScale
from files.atomic import write_csv
from files.parallel import in_parallel

SCALED = {
    "median": "median per image",
    "global": "one for the whole set, the median of the images' ratios",
    "none": "none",
    "speed": "from the vehicle's speed by way of the pose network",
}
BASELINES = ("mean_map", "best_constant")


@dataclass(frozen=True)
class ImageSet:
    """The images of a list whose files are all there, and for each of the others the first file that it lacks."""

    title: str  # the list's file
    listed: list[str]
    found: list[str]
    missing: list[str]

    def places(self) -> dict[str, int]:
        """The images that count, each with its index in the list."""
        listed = {name: index for index, name in enumerate(self.listed)}
        return {name: listed[name] for name in self.found}


@dataclass(frozen=True)
class Predictions:
    """What a file of predictions holds."""

    file: Path
    depth: dict[str, np.ndarray]  # [h, w] by the image's name
    about: dict


Sets = dict[tuple[str, str], ImageSet]  # by images and ground truth, as in `DepthTest`
ImageScores = dict[str, float]  # the metrics, `scale` and `ratio` (that of the medians), and the number of `pixels`
Scores = dict[str, dict[str, list[ImageScores]]]  # by test and method ("network" or a baseline), of each image


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
        speed_scales: for tests that are scaled by the speed: by test and image.
        root: the folder that the images' names are relative to.
        workers: threads; each makes an image's ground truth, scores it by all tests, and lets it go.
        quiet: without a progress bar.
    """
    names = list(dict.fromkeys(name for images in sets.values() for name in images.found))
    members = {pair: images.places() for pair, images in sets.items()}
    baselines = {"best_constant": np.ones((1, 1))} | ({} if mean_map is None else {"mean_map": mean_map})

    def compared(
        item: tuple[int, str], chosen: dict[str, DepthTest]
    ) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
        """For each of the chosen tests that have the image: the true depths that count, and by method the predicted."""
        index, name = item
        where = f"{predictions.file}, prediction {index} ({name})"
        check_prediction(predictions.depth[name], where)
        methods = {"network": predictions.depth[name]} | baselines
        truths: dict[str, KnownDepth] = {}
        counted: dict[tuple, np.ndarray] = {}
        resized: dict[tuple, np.ndarray] = {}
        for test_name, test in chosen.items():
            if name not in members[test.images, test.ground_truth]:
                continue
            kind, protocol = test.ground_truth, test.protocol
            if kind not in truths:
                truths[kind] = read_truth(root, name, kind, members[test.images, kind][name])
            pixels = (kind, protocol.crop, protocol.cap, protocol.beyond_cap)
            if pixels not in counted:
                counted[pixels] = counted_pixels(truths[kind], protocol)
                check_counted(counted[pixels], protocol, where)
            depths = {}
            for method, depth in methods.items():
                key = (kind, protocol.resized, method)
                if key not in resized:
                    resized[key] = resized_depth(depth, truths[kind], protocol.resized)
                depths[method] = resized[key][counted[pixels]]
            yield test_name, truths[kind].depth[counted[pixels]], depths

    def statistics(item: tuple[int, str]) -> dict[str, tuple[dict[str, float], np.ndarray]]:
        return {
            test: ({method: median_ratio(truth, depth) for method, depth in depths.items()}, constant_weights(truth))
            for test, truth, depths in compared(item, unscaled)
        }

    def score_image(item: tuple[int, str]) -> dict[str, dict[str, ImageScores]]:
        result: dict[str, dict[str, ImageScores]] = {}
        for test, truth, depths in compared(item, tests):
            protocol = tests[test].protocol
            result[test] = {}
            for method, depth in depths.items():
                ratio = median_ratio(truth, depth)
                if protocol.scaling == "median":
                    scale = ratio
                elif protocol.scaling == "speed" and method == "network":
                    scale = speed_scales[test][item[1]].scale
                else:
                    scale = scales[test][method]
                result[test][method] = scaled_errors(truth, depth, scale, protocol.cap) | {"ratio": ratio}
        return result

    places = {name: index for index, name in enumerate(predictions.depth)}  # in the file, for errors
    items = [(places[name], name) for name in names]
    # What is not scaled image by image needs to know all images first: the one scale, or the constant that suits all.
    unscaled = {name: test for name, test in tests.items() if test.protocol.scaling != "median"}
    scales: dict[str, dict[str, float]] = {}
    if unscaled:
        found = in_parallel(statistics, items, workers)
        passed = list(tqdm(found, total=len(names), desc="finding scales", unit="image", disable=quiet))
        for name, test in unscaled.items():
            of_images = [image[name] for image in passed if name in image]
            if test.protocol.scaling == "global":
                scales[name] = {
                    method: float(np.median([ratios[method] for ratios, _ in of_images])) for method in of_images[0][0]
                }
            else:
                weights = np.sum([weights for _, weights in of_images], axis=0)
                scales[name] = {"network": 1.0, "mean_map": 1.0, "best_constant": best_constant(weights)}
    scored = in_parallel(score_image, items, workers)
    progress = tqdm(scored, total=len(names), desc="scoring", unit="image", disable=quiet)
    by_name = dict(zip(names, progress, strict=True))
    return {
        name: {
            method: [by_name[image][name][method] for image in sets[test.images, test.ground_truth].found]
            for method in ["network", *baselines]
        }
        for name, test in tests.items()
    }


def summarise(name: str, test: DepthTest, images: ImageSet, scores: dict[str, list[ImageScores]]) -> dict:
    """The result of a test for machines: its line, its parts and its figures."""
    protocol = test.protocol
    network = scores["network"]
    # Of one scale for the whole set, mean and spread are those of the images' own.
    scales = np.array([image["ratio" if protocol.scaling == "global" else "scale"] for image in network])
    return {
        "line": f"{name}: {describe(test, images)}",
        "images": {
            "list": images.title,
            "listed": len(images.listed),
            "found": len(images.found),
            "missing": images.missing,
        },
        "ground_truth": test.ground_truth,
        **asdict(protocol),
        "metrics": mean_metrics(network),
        "scale": {
            "median": float(np.median(scales)),
            "mean": float(np.mean(scales)),
            # Over the images, as a share of the median: how consistent the network's unit is.
            "spread": float(np.std(scales / np.median(scales))),
        },
        "pixels_per_image": float(np.mean([image["pixels"] for image in network])),
        "baselines": {method: mean_metrics(scores[method]) if method in scores else None for method in BASELINES},
    }


def describe(test: DepthTest, images: ImageSet) -> str:
    """What was compared with what, in one line."""
    count = f"{len(images.found)} of {len(images.listed)} images of {images.title} found, {len(images.missing)} missing"
    if images.missing:
        count = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: {count.upper()}"
    protocol = test.protocol
    return (
        f"{count}; ground truth: {describe_truth(test.ground_truth)}; crop: {protocol.crop}; "
        f"cap: {protocol.cap:g} m{' (farther ground truth counts, too)' if protocol.beyond_cap else ''}; "
        f"scaling: {SCALED[protocol.scaling]}; resized to the truth's size: {protocol.resized}"
    )


def write_images(file: Path, tests: dict[str, DepthTest], sets: Sets, scores: Scores) -> None:
    """A line for each image and test: its metrics, scale and pixels, and the baselines' Abs Rel."""
    rows = []
    for name, test in tests.items():
        for index, image in enumerate(sets[test.images, test.ground_truth].found):
            own = scores[name]["network"][index]
            row = {"protocol": name, "index": index, "image": image}
            row |= {column: own[column] for column in (*METRICS, "scale", "pixels")}
            for method in BASELINES:
                row[f"{method}_abs_rel"] = scores[name][method][index]["abs_rel"] if method in scores[name] else ""
            rows.append(row)
    write_csv(file, rows)
