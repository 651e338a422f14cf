from dataclasses import replace

from evaluation.metrics.depth import DepthProtocol
from evaluation.metrics.depth_protocols import PROTOCOLS, DepthTest, matrix, name_of, name_tests, vary


def test_the_papers_protocol():
    paper = PROTOCOLS["paper"]
    assert (paper.images, paper.ground_truth) == ("eigen", "velodyne_x")
    assert paper.protocol == DepthProtocol(cap=80, crop="garg", scaling="median", resized="depth", beyond_cap=False)
    assert PROTOCOLS["paper-50"] == replace(paper, protocol=DepthProtocol(cap=50))


def test_vary_gives_every_combination_once():
    tests = vary([PROTOCOLS["paper"], PROTOCOLS["paper-50"]], cap=[80.0, 30.0], ground_truth=["camera_z"], crop=[])
    assert tests == [
        DepthTest("eigen", "camera_z", DepthProtocol(cap=80)),
        DepthTest("eigen", "camera_z", DepthProtocol(cap=30)),
    ]


def test_the_matrix_is_whole():
    tests = matrix([("eigen", "velodyne_x"), ("benchmark", "improved")], ["median", "none"])
    assert len(tests) == len(set(tests)) == 2 * 3 * 2 * 2 * 2
    assert PROTOCOLS["paper"] in tests
    assert DepthTest("benchmark", "improved", DepthProtocol(50, "eigen", "none", "disparity")) in tests


def test_names():
    for name, test in PROTOCOLS.items():
        assert name_of(test) == name
    assert name_of(replace(PROTOCOLS["paper"], images="my/list.txt")) == "paper"  # its line names the list
    # The paper's way of comparing, on other images of KITTI, is not the paper's protocol.
    assert name_of(replace(PROTOCOLS["paper"], images="benchmark")) == "benchmark/velodyne_x/garg/80/median/depth"
    named = {name_of(test) for test in matrix([("a/b.txt", "npy")], ["median", "global"])}
    assert len(named) == 24
    assert "stored" in named
    assert "b.txt/npy/garg/50/global/disparity" in named


def test_files_of_one_name_are_told_apart_by_their_folders():
    truths = ["a/gt.npz", "b/gt.npz", "x/a/gt.npz", "gt.npz", "other.npz", "camera_z"]
    tests = vary([PROTOCOLS["paper"]], ground_truth=truths)
    named = name_tests(tests)
    assert list(named.values()) == tests
    ends = "garg/80/median/depth"
    shown = ["a/gt.npz", "b/gt.npz", "x/a/gt.npz", "gt.npz", "other.npz"]
    assert [*named] == [*(f"eigen/{truth}/{ends}" for truth in shown), "camera"]
