"""test_make3d.py as typed, on small files in Make3D's formats."""

import csv
import json
import sys

from cli.flags import run_script

import numpy as np
import pytest
import scipy.io
import torch
from path import Path
from PIL import Image

import evaluation.make3d
import test_make3d
from datasets.formats.make3d import read_cropped_image
from evaluation.metrics.make3d import METRICS
from evaluation.predictions import save_predictions
from files.images import resize_area
from models.checkpoint import load_model
from models.pose_exp_net import PoseExpNet

NAMES = ["math7-p-282t0", "op2-p-015t000", "statroad-p-1t0"]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_checkpoint):
    return write_checkpoint(Path(tmp_path_factory.mktemp("run")) / "last.pt")


@pytest.fixture
def make3d(tmp_path, monkeypatch):
    """Three photographs of 150 x 200 with their depth, and a test set that has three."""
    monkeypatch.setattr(evaluation.make3d, "IMAGES", 3)
    root = Path(tmp_path) / "make3d"
    (root / "Test134").makedirs()
    (root / "Gridlaserdata").makedirs()
    for seed, name in enumerate(NAMES):
        rng = np.random.default_rng(seed)
        Image.fromarray(rng.integers(0, 256, (200, 150, 3), dtype=np.uint8)).save(root / f"Test134/img-{name}.jpg")
        grid = rng.uniform(1, 90, (55, 305, 4))
        scipy.io.savemat(root / f"Gridlaserdata/depth_sph_corr-{name}.mat", {"Position3DGrid": grid})
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script as typed: (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["test_make3d.py", *map(str, arguments)])
        status = 0
        try:
            run_script(test_make3d.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def truth(make3d, name):
    return scipy.io.loadmat(make3d / f"Gridlaserdata/depth_sph_corr-{name}.mat")["Position3DGrid"][17:38, :, 3]


def save(file, depth, names=NAMES, about=None):
    save_predictions(file, "depth", {"files": np.array(names), "depth": np.asarray(depth)}, about or {})
    return file


def test_predicts_saves_and_scores(make3d, checkpoint, run, tmp_path):
    saved, result, lines = (Path(tmp_path) / name for name in ("d.npz", "r.json", "r.csv"))
    flags = ("--make3d", make3d, "--json", result, "--csv", lines)
    status, output, errors = run(checkpoint, *flags, "--save", saved, "--batch-size", 2)
    assert status == 0, errors
    assert (
        "protocol: 3 of the 3 test images of Make3D; central crop 2 : 1 (rows 710 to 1561 of 2272, 17 to 37 of 55); "
        "ground truth: the laser's distance, as published; scaling: median per image; resized to the truth's size: "
        "nearest; below 70 m (C1)"
    ) in output
    first = json.loads(result.read_text())
    assert first["images"] == {"expected": 3, "found": 3, "missing": []}
    assert first["predictions"]["step"] == 3

    stored = np.load(saved, allow_pickle=False)
    assert stored["files"].tolist() == NAMES
    images = [read_cropped_image(make3d / f"Test134/img-{name}.jpg", 2) for name in NAMES]
    assert images[0].shape == (75, 150, 3)
    inputs = torch.from_numpy(np.stack([resize_area(image, 32, 64) for image in images]))
    with torch.no_grad():
        disparity = load_model(checkpoint).depth_net(inputs.permute(0, 3, 1, 2) / 127.5 - 1)[0]
    np.testing.assert_allclose(stored["depth"], 1 / disparity[:, 0].numpy(), rtol=1e-5)

    # By hand, from the file: the network's figures, and those of each image's median.
    wanted = {"network": [], "constant": []}
    for name, depth in zip(NAMES, stored["depth"], strict=True):
        rows, columns = np.nonzero(truth(make3d, name) < 70)
        known = truth(make3d, name)[rows, columns]
        compared = depth[rows * 32 // 21, columns * 64 // 305]
        compared = np.minimum(compared * np.median(known) / np.median(compared), 70)
        wanted["network"].append(np.mean(np.abs(compared - known) / known))
        wanted["constant"].append(np.mean(np.abs(np.median(known) - known) / known))
    assert first["result"]["abs_rel"] == pytest.approx(np.mean(wanted["network"]), rel=1e-5)
    assert first["baselines"]["constant"]["abs_rel"] == pytest.approx(np.mean(wanted["constant"]), rel=1e-5)

    with open(lines) as stream:
        rows = list(csv.DictReader(stream))
    assert [row["image"] for row in rows] == NAMES
    assert [float(row["abs_rel"]) for row in rows] == pytest.approx(wanted["network"], rel=1e-5)

    status, output, errors = run("--predictions", saved, *flags, "--workers", 1)
    assert status == 0, errors
    assert json.loads(result.read_text())["result"] == first["result"]
    table = output.split("\n\n")[1].splitlines()
    assert table[0].split()[:6] == list(METRICS)
    assert table[1].split()[1] == f"{first['result']['abs_rel']:.4f}"


def test_the_truth_is_perfect_in_any_unit(make3d, run, tmp_path):
    for factor in (1.0, 7.0):
        saved = save(Path(tmp_path) / "d.npz", [factor * truth(make3d, name) for name in NAMES])
        status, _, errors = run("--predictions", saved, "--make3d", make3d, "--json", tmp_path / "r.json")
        assert status == 0, errors
        result = json.loads((tmp_path / "r.json").read_text())["result"]
        assert [result[name] for name in METRICS] == pytest.approx([0] * 6, abs=1e-6)
        assert result["scale"] == pytest.approx(1 / factor)


def test_another_crop_is_remembered(make3d, checkpoint, run, tmp_path):
    saved = Path(tmp_path) / "d.npz"
    status, output, errors = run(checkpoint, "--make3d", make3d, "--save", saved, "--ratio", "3.25")
    assert status == 0, errors
    assert "central crop 3.25 : 1" in output
    status, output, _ = run("--predictions", saved, "--make3d", make3d)
    assert "central crop 3.25 : 1" in output
    status, _, errors = run("--predictions", saved, "--make3d", make3d, "--ratio", "2")
    assert (status, "cropped to 3.25 : 1, --ratio says 2" in errors) == (1, True)


def test_flip_averaging_is_said(make3d, checkpoint, run, tmp_path):
    saved = Path(tmp_path) / "d.npz"
    depth = []
    for flags in ((), ("--flip-average",)):
        status, output, errors = run(checkpoint.parent, "--which", "last", "--make3d", make3d, "--save", saved, *flags)
        assert status == 0, errors
        assert ("averaged with the mirrored image" in output) == bool(flags)
        depth.append(np.load(saved)["depth"])
    assert not np.array_equal(*depth)
    assert "averaged with the mirrored image" in run("--predictions", saved, "--make3d", make3d)[1]
    assert run("--predictions", saved, "--make3d", make3d, "--flip-average")[0] == 2


def test_never_fewer_images_without_saying_so(make3d, checkpoint, run, tmp_path):
    saved, result = Path(tmp_path) / "d.npz", Path(tmp_path) / "r.json"
    run(checkpoint, "--make3d", make3d, "--save", saved)
    depth = make3d / f"Gridlaserdata/depth_sph_corr-{NAMES[1]}.mat"
    whole = depth.read_bytes()
    depth.remove()
    flags = ("--predictions", saved, "--make3d", make3d, "--json", result)
    status, _, errors = run(*flags)
    assert status == 1
    assert f"{depth}: no such file; 3 images and 2 of them with depth, expected Make3D's 3; --allow-missing" in errors
    status, output, errors = run(*flags, "--allow-missing")
    assert status == 0, errors
    assert "INCOMPLETE, NOT COMPARABLE WITH FIGURES OF ALL IMAGES: 2 OF THE 3" in output
    assert json.loads(result.read_text())["images"] == {"expected": 3, "found": 2, "missing": [str(depth)]}

    depth.write_bytes(whole)
    (make3d / f"Test134/img-{NAMES[2]}.jpg").remove()
    status, _, errors = run(*flags)
    assert (status, "2 images and 2 of them with depth" in errors) == (1, True)
    status, output, _ = run(*flags, "--allow-missing")
    assert "1 images that are not in" in json.loads(result.read_text())["images"]["missing"][0]


def test_more_images_than_the_test_set_has(make3d, run, tmp_path):
    (make3d / f"Test134/img-{NAMES[0]}.jpg").copy(make3d / "Test134/img-more.jpg")
    status, _, errors = run("--predictions", "d.npz", "--make3d", make3d)
    assert (status, "4 images, expected the 3 of Make3D's test set alone" in errors) == (1, True)


def test_damaged_files_are_named(make3d, checkpoint, run, tmp_path):
    saved = Path(tmp_path) / "d.npz"
    image = make3d / f"Test134/img-{NAMES[1]}.jpg"
    whole = image.read_bytes()
    image.write_bytes(whole[:500])
    status, _, errors = run(checkpoint, "--make3d", make3d, "--save", saved)
    assert (status, f"img-{NAMES[1]}.jpg: truncated" in errors, saved.exists()) == (1, True, False)
    image.write_bytes(whole)
    run(checkpoint, "--make3d", make3d, "--save", saved)
    depth = make3d / f"Gridlaserdata/depth_sph_corr-{NAMES[2]}.mat"
    depth.write_bytes(depth.read_bytes()[:-1000])
    status, _, errors = run("--predictions", saved, "--make3d", make3d)
    assert (status, f"{depth}: not a whole MATLAB 5 file" in errors, errors.count("error: ")) == (1, True, 1)
    scipy.io.savemat(depth, {"Position3DGrid": np.zeros((55, 305, 4))})
    status, _, errors = run("--predictions", saved, "--make3d", make3d)
    assert (status, f"{depth}: no distance above 0" in errors) == (1, True)


def test_predictions_that_do_not_fit(make3d, run, tmp_path):
    file = Path(tmp_path) / "d.npz"
    flags = ("--predictions", file, "--make3d", make3d)
    save(file, np.ones((2, 4, 4)), NAMES[:2])
    assert "statroad-p-1t0 is not predicted (1 lack a prediction, 0 are of no image)" in run(*flags)[2]
    save(file, np.ones((4, 4, 4)), [*NAMES, "more"])
    assert "more is none of the images (0 lack a prediction, 1 are of no image)" in run(*flags)[2]
    save(file, np.ones((3, 4, 4)), about={"make3d_ratio": "2"})
    assert "make3d_ratio is 2, expected a number" in run(*flags)[2]
    save(file, np.where(np.arange(48).reshape(3, 4, 4) == 20, np.nan, 1))
    assert f"d.npz, prediction 1 ({NAMES[1]}): 1 of 16 depths are not finite" in run(*flags)[2]
    save(file, np.ones((3, 4), np.float32))
    assert "expected [3, height, width]" in run(*flags)[2]


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ((), 2, "--make3d"),
        (("--make3d", "k"), 2, "either a CHECKPOINT"),
        (("--predictions", "d.npz", "--make3d", "k", "--width", "64"), 2, "--width: only with a CHECKPOINT"),
        (("a.pt", "--make3d", "k", "--ratio", "0.5"), 2, "from 0.75"),
        (("a.pt", "--make3d", "k", "--resize", "cubic"), 2, "--resize"),
        (("a.pt", "--make3d", "no/such/folder"), 1, "no/such/folder: no such folder"),
        (("a.pt", "--make3d", ".", "--csv", "no/folder/r.csv"), 1, "--csv no/folder/r.csv: no such folder"),
        (("no.pt", "--make3d", "MAKE3D"), 1, "no.pt: no such file"),
        (("--predictions", "no.npz", "--make3d", "MAKE3D"), 1, "no.npz: no such file"),
        (("--predictions", "MAKE3D", "--make3d", "MAKE3D"), 1, "is a folder, expected a file of predictions"),
    ],
)
def test_wrong_use(make3d, run, arguments, status, expected):
    found, _, errors = run(*[text.replace("MAKE3D", make3d) for text in arguments])
    assert found == status
    assert expected in errors
    assert "Traceback" not in errors


def test_a_pose_checkpoint_is_refused(make3d, run, tmp_path):
    torch.save({"epoch": 1, "state_dict": PoseExpNet(2, False).state_dict()}, tmp_path / "exp_pose.pth.tar")
    status, _, errors = run(tmp_path / "exp_pose.pth.tar", "--make3d", make3d)
    assert (status, "no depth network" in errors) == (1, True)


def test_help_teaches(run):
    status, output, _ = run("--help")
    assert status == 0
    assert "python test_make3d.py runs/my_run/last.pt --make3d MAKE3D" in output
