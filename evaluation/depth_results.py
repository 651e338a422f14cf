"""The results of depth tests: as written to JSON and CSV, and as rows of a table."""

from dataclasses import asdict

import numpy as np
from path import Path

from evaluation.depth_scoring import ImageScores, ImageSet, Scores, Sets
from evaluation.ground_truth import describe_truth
from evaluation.metrics.depth import METRICS, mean_metrics
from evaluation.metrics.depth_protocols import DepthTest
from evaluation.predictions import describe_averages
from evaluation.speed_scale import SLOWEST, SpeedScale
from files.atomic import write_csv

SCALED = {
    "median": "median per image",
    "global": "one for the whole set, the median of the images' ratios",
    "none": "none",
    "speed": "from the vehicle's speed by way of the pose network",
}
BASELINES = ("mean_map", "best_constant")
TITLES = {"mean_map": "mean depth map of the training set", "best_constant": "best constant"}


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


def add_notes(results: dict[str, dict], scales: dict[str, dict[str, SpeedScale]], about: dict) -> None:
    """Add to summaries what each prediction is a mean over, how the images were converted, and how many images have a
    scale of their own from the speed.

    Args:
        about: how the predictions were made.
    """
    conversion, averaged = about.get("conversion"), describe_averages(about)
    for summary in results.values():
        summary["line"] += averaged
        summary["averaged"] = averaged.removeprefix("; ")
    if isinstance(conversion, str) and conversion:  # the figures are of other images than those of the list
        for summary in results.values():
            summary["line"] += f"; {conversion}"
            summary["images"]["conversion"] = conversion
    for name, per_image in scales.items():
        slow = sum(not scale.measured for scale in per_image.values())
        results[name]["scale"]["measured"] = len(per_image) - slow
        if slow:
            note = f"{slow} images taken at less than {SLOWEST:g} m/s are scaled by the median of the others"
            results[name]["line"] += f"; {note}"
            results[name]["scale"]["note"] = note


def set_line(protocol: dict) -> str:
    """The images and the ground truth of a result in one line."""
    images = protocol["images"]
    count = f"{images['found']} of {images['listed']} images found, {len(images['missing'])} missing"
    if images["missing"]:
        count = f"INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: {count.upper()}"
    if "conversion" in images:
        count += f"; {images['conversion']}"
    if protocol["averaged"]:
        count += f"; {protocol['averaged']}"
    return f"{images['list']}, {describe_truth(protocol['ground_truth'])}: {count}"


def result_rows(name: str, protocol: dict, short: bool) -> list[dict[str, str]]:
    """The rows of the table for one result: the network's and the baselines'; `short` puts all into one row."""
    factor = f"{protocol['scale']['median']:.4g} ({protocol['scale']['spread']:.3f})"
    figures = {metric: f"{protocol['metrics'][metric]:.4f}" for metric in METRICS}
    row = {"protocol": name} | figures | {"scale (spread)": factor}
    baselines = {key: protocol["baselines"][key] for key in BASELINES}
    if short:
        cells = {key: f"{metrics['abs_rel']:.4f}" if metrics else "-" for key, metrics in baselines.items()}
        return [row | {"mean map": cells["mean_map"], "constant": cells["best_constant"]}]
    return [row] + [
        {"protocol": f"  {TITLES[key]}"}
        | {metric: f"{metrics[metric]:.4f}" for metric in METRICS}
        | {"scale (spread)": ""}
        for key, metrics in baselines.items()
        if metrics
    ]
