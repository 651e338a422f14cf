"""The protocols of depth evaluation by name: which images, against which ground truth, compared how.

docs/evaluation.md says of each who published with it, and what is odd about it.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import product

from evaluation.metrics.depth import CROPS, RESIZED, DepthProtocol

LISTED = "listed"  # in place of a list's name: the protocol has none of its own


@dataclass(frozen=True)
class DepthTest:
    """What one result is of."""

    images: str  # "eigen" (697), "benchmark" (the 652 of them that have an improved depth map), or a list's file
    ground_truth: str  # a kind that `ground_truth.py` knows, or a file with all depth maps
    protocol: DepthProtocol


PROTOCOLS = {
    "paper": DepthTest("eigen", "velodyne_x", DepthProtocol()),
    "paper-50": DepthTest("eigen", "velodyne_x", DepthProtocol(cap=50)),
    "monodepth2": DepthTest("eigen", "velodyne_x", DepthProtocol(resized="disparity")),
    "camera": DepthTest("eigen", "camera_z", DepthProtocol()),
    "improved": DepthTest("benchmark", "improved", DepthProtocol(crop="none", resized="disparity", beyond_cap=True)),
    "dense": DepthTest(LISTED, "dense", DepthProtocol(crop="none")),
    "stored": DepthTest(LISTED, "npy", DepthProtocol(crop="none")),
}


def vary(tests: Iterable[DepthTest], **values: list) -> list[DepthTest]:
    """The tests with each of the given values in place of their own, in all combinations, each once.

    Args:
        values: by name: `images`, `ground_truth`, or a field of `DepthProtocol`; an empty list leaves it as it is.
    """
    given = {name: choices for name, choices in values.items() if choices}
    varied: dict[DepthTest, None] = {}  # in order, each once
    for test in tests:
        for chosen in product(*given.values()):
            parts = dict(zip(given, chosen, strict=True))
            outer = {name: parts.pop(name) for name in ("images", "ground_truth") if name in parts}
            varied[replace(test, protocol=replace(test.protocol, **parts), **outer)] = None
    return list(varied)


def matrix(sets: Iterable[tuple[str, str]], scalings: list[str]) -> list[DepthTest]:
    """Every way of comparing for each (images, ground truth): crops, caps of 80 and 50 m, scalings, what is resized."""
    tests = [DepthTest(images, truth, DepthProtocol()) for images, truth in sets]
    return vary(tests, crop=list(CROPS), cap=[80.0, 50.0], scaling=scalings, resized=list(RESIZED))


def name_tests(tests: Iterable[DepthTest]) -> dict[str, DepthTest]:
    """The tests by `name_of`. Files of ground truth of one name get as many of their folders as tell them apart."""
    tests = list(tests)
    truths = list(dict.fromkeys(test.ground_truth for test in tests))
    return {name_of(test, _distinct_tail(test.ground_truth, truths)): test for test in tests}


def _distinct_tail(path: str, others: list[str]) -> str:
    """The shortest end of a path, in whole parts, that no other path ends with; the path itself if there is none."""
    parts = path.split("/")
    tails = ("/".join(parts[-count:]) for count in range(1, len(parts)))
    taken = [f"/{other}" for other in others if other != path]
    return next((tail for tail in tails if not any(other.endswith(f"/{tail}") for other in taken)), path)


def name_of(test: DepthTest, truth: str = "") -> str:
    """A named protocol's name, whatever list of images it is used on; else the parts that make the test.

    Args:
        truth: how the ground truth is called in the parts; "" for its name without folders.
    """
    for name, known in PROTOCOLS.items():
        other_list = test.images not in ("eigen", "benchmark")
        if replace(known, images=test.images if other_list else known.images) == test:
            return name
    protocol = test.protocol
    images = test.images.rpartition("/")[2]  # a list's file, without its folders
    parts = [
        images,
        truth or test.ground_truth.rpartition("/")[2],
        protocol.crop,
        f"{protocol.cap:g}",
        protocol.scaling,
        protocol.resized,
    ]
    return "/".join(parts) + ("/beyond" if protocol.beyond_cap else "")
