import csv
import json
import sys

from cli.flags import run_script

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
from path import Path

import test_depth
from datasets.formats.kitti_folders import read_image_list
from evaluation.ground_truth import read_truth
from evaluation.metrics.depth import METRICS
from files.images import resize_area
from inference.depth import predict_depth
from models.checkpoint import load_model
from models.pose_exp_net import PoseExpNet

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
HEIGHT, WIDTH = 60, 200  # of the images; the network takes 32 x 64
FRAMES = 5


def name_of(frame):
    return f"{DRIVE}/image_02/data/{frame:010d}.png"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, write_checkpoint):
    return write_checkpoint(Path(tmp_path_factory.mktemp("run")) / "last.pt")


@pytest.fixture
def kitti(tmp_path):
    """A drive in KITTI's layout: a camera of 60 x 200, the LiDAR at the camera, random points ahead."""
    root = Path(tmp_path) / "kitti"
    random = np.random.default_rng(0)
    for folder in ("image_02", "velodyne_points"):
        (root / DRIVE / folder / "data").makedirs_p()
    projection = "100 0 100 0 0 100 30 0 0 0 1 0"
    (root / "2011_09_26/calib_cam_to_cam.txt").write_text(
        f"calib_time: 09-Jan-2012\nR_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: {WIDTH} {HEIGHT}\nP_rect_02: {projection}\n"
    )
    (root / "2011_09_26/calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 0 0\n")
    for frame in range(FRAMES):
        pixels = random.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        imageio.imwrite(root / name_of(frame), pixels)
        x = random.uniform(2, 70, 500)
        points = np.stack([x, x * random.uniform(-1, 1, 500), x * random.uniform(-0.3, 0.3, 500), 0 * x], -1)
        points.astype("<f4").tofile(root / DRIVE / "velodyne_points/data" / f"{frame:010d}.bin")
    (root / "list.txt").write_text("".join(f"{name_of(frame)}\n" for frame in range(FRAMES)))
    return root


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the script as typed: (exit status, standard output, standard error)."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["test_depth.py", *map(str, arguments)])
        status = 0
        try:
            run_script(test_depth.main)
        except SystemExit as end:
            status = end.code
        return status, *capsys.readouterr()

    return run


def save(file, frames=range(FRAMES), change=None):
    """A made-up file of predictions."""
    depth = np.random.default_rng(1).uniform(1, 50, (len(frames), 32, 64)).astype(np.float32)
    arrays = {"files": np.array([name_of(frame) for frame in frames]), "depth": depth}
    test_depth.save_predictions(file, "depth", arrays | (change or {}), {"step": 1})
    return file


def test_predicts_saves_and_scores(kitti, checkpoint, run, tmp_path):
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    shared_flags = ("--kitti", kitti, "--list", kitti / "list.txt")
    status, output, errors = run(checkpoint, *shared_flags, "--save", saved, "--json", result, "--batch-size", 2)
    assert status == 0, errors
    assert "paper: 5 of 5 images of list.txt found, 0 missing; ground truth: the LiDAR's x, as published" in output
    first = json.loads(result.read_text())
    assert {name: part["cap"] for name, part in first["protocols"].items()} == {"paper": 80, "paper-50": 50}
    images = first["protocols"]["paper"]["images"]
    assert images == {"list": "list.txt", "listed": 5, "found": 5, "missing": []}
    assert first["predictions"]["step"] == 3

    stored = np.load(saved, allow_pickle=False)
    assert stored["depth"].dtype == np.float32
    assert stored["depth"].shape == (5, 32, 64)
    assert stored["files"].tolist() == [name_of(frame) for frame in range(5)]
    assert not saved.parent.files("*.part")

    status, output, errors = run("--predictions", saved, *shared_flags, "--json", result, "--workers", 1)
    assert status == 0, errors
    assert json.loads(result.read_text())["protocols"] == first["protocols"]
    table = output.split("\n\n")[1].splitlines()
    assert table[0].split()[:8] == ["protocol", *METRICS]
    assert table[1].split()[:2] == ["paper", f"{first['protocols']['paper']['metrics']['abs_rel']:.4f}"]


def test_depth_is_one_over_the_finest_disparity(checkpoint):
    images = np.random.default_rng(0).integers(0, 256, (2, 3, 32, 64), dtype=np.uint8)
    depth_net = load_model(checkpoint).depth_net
    with torch.no_grad():
        disparity = depth_net(torch.from_numpy(images).float() / 127.5 - 1)[0]
    np.testing.assert_allclose(
        np.stack(list(predict_depth(depth_net, iter(images), 2, 2, torch.device("cpu")))),
        1 / disparity[:, 0].numpy(),
        rtol=1e-6,
    )


def test_image_resized_beforehand_gives_the_same_prediction_and_score(kitti, checkpoint, run, tmp_path):
    results = []
    for folder in ("full", "small"):
        if folder == "small":
            for frame in range(FRAMES):
                full = imageio.imread(kitti / name_of(frame))
                imageio.imwrite(kitti / name_of(frame), resize_area(full, 32, 64))
        saved, result = Path(tmp_path) / f"{folder}.npz", Path(tmp_path) / f"{folder}.json"
        status, _, errors = run(
            checkpoint, "--kitti", kitti, "--list", kitti / "list.txt", "--save", saved, "--json", result
        )
        assert status == 0, errors
        results.append((np.load(saved)["depth"], json.loads(result.read_text())["protocols"]))
    np.testing.assert_array_equal(results[0][0], results[1][0])
    assert results[0][1] == results[1][1]


def test_ground_truth_as_prediction_is_perfect_and_its_unit_does_not_matter(kitti, run, tmp_path):
    dense = np.full((FRAMES, HEIGHT, WIDTH), 10.0)
    for frame in range(FRAMES):
        truth = read_truth(kitti, name_of(frame), "camera_z")
        dense[frame, truth.rows, truth.columns] = truth.depth
    for factor in (1, 7):
        saved = save(Path(tmp_path) / "depth.npz", change={"depth": factor * dense})
        result = Path(tmp_path) / "result.json"
        arguments = ("--kitti", kitti, "--list", kitti / "list.txt", "--ground-truth", "camera_z", "--json", result)
        status, _, errors = run("--predictions", saved, *arguments, "--scaling", "median", "global")
        assert status == 0, errors
        rows = json.loads(result.read_text())["protocols"].values()
        assert len(rows) == 4
        for row in rows:
            assert list(row["metrics"].values()) == pytest.approx([0, 0, 0, 0, 1, 1, 1], abs=1e-6)
            assert row["scale"]["mean"] == pytest.approx(1 / factor)


def test_times_7_changes_nothing_that_is_scaled(kitti, run, tmp_path):
    depth = np.random.default_rng(1).uniform(1, 50, (FRAMES, 32, 64))
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--protocol", "all", "--scaling", "median", "global")
    results = []
    for factor in (1, 7):
        saved = save(Path(tmp_path) / "depth.npz", change={"depth": factor * depth})
        result = Path(tmp_path) / "result.json"
        assert run("--predictions", saved, *flags, "--json", result)[0] == 0
        results.append(json.loads(result.read_text())["protocols"])
    assert len(results[0]) == 48
    for name, one in results[0].items():
        assert results[1][name]["metrics"] == pytest.approx(one["metrics"], rel=1e-6)
        assert results[1][name]["scale"]["mean"] == pytest.approx(one["scale"]["mean"] / 7, rel=1e-6)


def test_benchmark_form_and_any_order(kitti, run, tmp_path):
    (kitti / "list.txt").write_text("# frames\n" + "".join(f"{DRIVE} {frame} l\n" for frame in (4, 2, 0, 1, 3)))
    assert read_image_list(kitti / "list.txt", kitti)[0] == name_of(4)
    saved = save(Path(tmp_path) / "depth.npz")
    status, output, _ = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt")
    assert status == 0
    assert "5 of 5 images" in output


def test_kitti_converted_to_jpeg_is_found_and_the_line_says_so(kitti, checkpoint, run, tmp_path):
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--save", saved, "--json", result)
    pixels = {frame: imageio.imread(kitti / name_of(frame)) for frame in range(FRAMES)}
    for frame in (1, 2, 3):
        (kitti / name_of(frame)).unlink()
        imageio.imwrite((kitti / name_of(frame)).with_suffix(".jpg"), pixels[frame], quality=95)
    status, output, errors = run(checkpoint, *flags, "--pictures", Path(tmp_path) / "sheet.png")
    assert status == 0, errors
    assert "paper: 5 of 5 images of list.txt found, 0 missing" in output
    assert output.count("3 images read as .jpg, not as .png") == 2  # in both protocols' lines
    first = json.loads(result.read_text())["protocols"]
    assert first["paper"]["images"]["conversion"] == "3 images read as .jpg, not as .png"
    assert np.load(saved)["files"].tolist() == [name_of(frame) for frame in range(FRAMES)]
    # The file of predictions knows it, whatever lies there when it is scored again.
    for frame in (1, 2, 3):
        imageio.imwrite(kitti / name_of(frame), pixels[frame])
    status, output, errors = run("--predictions", saved, *flags[:4], "--json", result, "--protocol", "all")
    assert status == 0, errors
    again = json.loads(result.read_text())["protocols"]
    assert again["paper"]["line"] == first["paper"]["line"]
    assert all("3 images read as .jpg" in one["line"] for one in again.values())
    assert "list.txt, the LiDAR's x, as published: 5 of 5 images found, 0 missing; 3 images read as .jpg" in output
    status, output, errors = run(checkpoint, *flags)  # PNGs come first
    assert status == 0, errors
    assert "read as" not in output


def test_a_list_in_any_form_gives_the_same_figures(kitti, checkpoint, run, tmp_path):
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    results = []
    for form in ("{}", "./{}", f"{kitti.absolute()}/{{}}"):
        (kitti / "list.txt").write_text("".join(f"{form.format(name_of(frame))}\n" for frame in range(FRAMES)))
        flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--save", saved, "--json", result)
        status, _, errors = run(checkpoint, *flags)
        assert status == 0, errors
        results.append(json.loads(result.read_text())["protocols"])
    assert results[0] == results[1] == results[2]


def test_stored_depth_beside_any_image(tmp_path, checkpoint, run):
    scene = Path(tmp_path) / "prepared/scene"
    scene.makedirs_p()
    imageio.imwrite(scene / "0000000.jpg", np.zeros((32, 64, 3), np.uint8))
    np.save(scene / "0000000.npy", np.full((32, 64), 5, np.float32))
    (tmp_path / "list.txt").write_text("scene/0000000.jpg\n")
    arguments = ("--kitti", scene.parent, "--list", tmp_path / "list.txt", "--save", tmp_path / "d.npz")
    status, output, errors = run(checkpoint, *arguments, "--ground-truth", "npy")
    assert status == 0, errors
    assert "stored .npy" in output


def write_depth_picture(kitti, frame, depth):
    file = kitti / DRIVE / "proj_depth/groundtruth/image_02" / f"{frame:010d}.png"
    file.parent.makedirs_p()
    imageio.imwrite(file, np.round(depth * 256).astype(np.uint16))
    return file


def score(run, kitti, saved, *arguments):
    """The result of a run over saved predictions: (JSON, standard output)."""
    result = kitti / "result.json"
    status, output, errors = run(
        "--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", "--json", result, *arguments
    )
    assert status == 0, errors
    return json.loads(result.read_text()), output


def test_dense_depth_by_hand(kitti, run, tmp_path):
    """A 16-bit picture with one half at 10 m, the other at 20 m and a row of unknown; predicted are 1 and 3."""
    truth = np.full((HEIGHT, WIDTH), 10.0)
    truth[:, WIDTH // 2 :] = 20
    truth[0] = 0
    predicted = np.ones((FRAMES, HEIGHT, WIDTH), np.float32)
    predicted[:, :, WIDTH // 2 :] = 3
    for frame in range(FRAMES):
        write_depth_picture(kitti, frame, truth)
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": predicted})
    protocols = score(run, kitti, saved, "--protocol", "dense", "--scaling", "median", "global", "none")[0]["protocols"]
    # The medians are 15 and 2, the scale 7.5: 7.5 against 10 and 22.5 against 20.
    dense = protocols["dense"]
    assert dense["metrics"]["abs_rel"] == pytest.approx((2.5 / 10 + 2.5 / 20) / 2)
    assert dense["scale"] == pytest.approx({"median": 7.5, "mean": 7.5, "spread": 0})
    assert dense["pixels_per_image"] == (HEIGHT - 1) * WIDTH
    # A constant becomes the image's median, 15 m; free to choose, 10 m is better.
    assert dense["baselines"]["best_constant"]["abs_rel"] == pytest.approx((5 / 10 + 5 / 20) / 2)
    unscaled = next(part for part in protocols.values() if part["scaling"] == "none")
    assert unscaled["metrics"]["abs_rel"] == pytest.approx((9 / 10 + 17 / 20) / 2)
    assert unscaled["baselines"]["best_constant"]["abs_rel"] == pytest.approx(10 / 20 / 2, rel=1e-3)
    whole = next(part for part in protocols.values() if part["scaling"] == "global")
    assert whole["metrics"] == pytest.approx(dense["metrics"])


def test_one_scale_for_the_whole_set(kitti, run, tmp_path):
    """Predictions whose unit differs from image to image: perfect with a scale each, and not with one for all."""
    units = np.array([1.0, 2, 2, 2, 4])
    for frame in range(FRAMES):
        write_depth_picture(kitti, frame, np.full((HEIGHT, WIDTH), 8.0))
    depth = np.tile((8 / units)[:, None, None], (1, HEIGHT, WIDTH))
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": depth})
    protocols = score(run, kitti, saved, "--protocol", "dense", "--scaling", "median", "global")[0]["protocols"]
    each, one = protocols.values()
    assert each["metrics"]["abs_rel"] == pytest.approx(0, abs=1e-12)
    # The ratios are 1, 2, 2, 2, 4: one scale of 2 is right for three, 100 % too much for one, half for another.
    assert one["metrics"]["abs_rel"] == pytest.approx((1 + 0 + 0 + 0 + 0.5) / 5)
    for part in (each, one):
        assert part["scale"]["median"] == 2
        assert part["scale"]["mean"] == pytest.approx(2.2)
        assert part["scale"]["spread"] == pytest.approx(np.std(units / 2))


def test_all_protocols_from_one_set_of_predictions(kitti, run, tmp_path):
    saved = save(Path(tmp_path) / "depth.npz")
    alone, _ = score(run, kitti, saved)
    everything, output = score(run, kitti, saved, "--protocol", "all")
    parts = everything["protocols"]
    # LiDAR in two kinds x 3 crops x 2 caps x 3 scalings x 2 things to resize; the named ones are among them.
    assert len(parts) == 72
    assert {"paper", "paper-50", "monodepth2", "camera"} <= parts.keys()
    assert "improved" not in parts
    table = output.split("\n\n")[1].splitlines()
    assert len(table) == 1 + len(parts)  # a line for each result, with both baselines in it
    assert table[0].split()[-2:] == ["map", "constant"]
    constant = parts["paper"]["baselines"]["best_constant"]["abs_rel"]
    assert next(line for line in table if line.startswith("paper ")).split()[-2:] == ["-", f"{constant:.4f}"]
    assert "list.txt, the LiDAR's x, as published: 5 of 5 images found, 0 missing" in output
    assert any("improved: 5 of 5 images lack a file" in line for line in everything["left_out"])
    assert "left out: " in output
    for name in alone["protocols"]:
        assert parts[name] == alone["protocols"][name]
    few, _ = score(run, kitti, saved, "--protocol", "all", "--crop", "none", "--cap", "60", "--resize", "depth")
    assert len(few["protocols"]) == 6


def test_improved_depth_maps_that_are_not_all_there(kitti, run, tmp_path):
    for frame in range(FRAMES - 1):
        write_depth_picture(kitti, frame, np.full((HEIGHT, WIDTH), 8.0))
    saved = save(Path(tmp_path) / "depth.npz")
    flags = ("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", "--protocol", "improved")
    status, _, errors = run(*flags)
    assert status == 1
    assert f"{FRAMES - 1:010d}.png: no such file; of the 5 images of" in errors
    status, output, _ = run(*flags, "--allow-missing")
    assert status == 0
    assert "improved: INCOMPLETE, NOT COMPARABLE" in output
    picture = write_depth_picture(kitti, FRAMES - 1, np.full((HEIGHT, WIDTH), 8.0))
    assert run(*flags)[0] == 0
    # As in the archive of the improved maps, unpacked into the same folder.
    picture.parent.makedirs_p()
    other = kitti / "val" / DRIVE.split("/")[1] / "proj_depth/groundtruth/image_02"
    other.makedirs_p()
    picture.move(other / picture.name)
    assert run(*flags)[0] == 0
    (other / picture.name).write_bytes((other / picture.name).read_bytes()[:-20])
    status, _, errors = run(*flags)
    assert status == 1
    assert f"{FRAMES - 1:010d}.png: truncated or damaged PNG" in errors
    imageio.imwrite(other / picture.name, np.ones((HEIGHT, WIDTH), np.uint8))
    assert "expected a depth map: grey, 16 bits" in run(*flags)[2]


def test_mean_map_of_the_training_set(kitti, run, tmp_path):
    prepared = Path(tmp_path) / "prepared"
    (prepared / "scene").makedirs_p()
    (prepared / "train.txt").write_text("scene\n")
    (prepared / "scene/cam.txt").write_text("1 0 1\n0 1 1\n0 0 1\n")
    (prepared / "scene/0000000.jpg").touch()
    np.save(prepared / "scene/0000000.npy", np.full((4, 6), 8, np.float32))
    for frame in range(FRAMES):
        write_depth_picture(kitti, frame, np.full((HEIGHT, WIDTH), 10.0))
    saved = save(Path(tmp_path) / "depth.npz")
    flags = ("--protocol", "dense", "--scaling", "none")
    result, output = score(run, kitti, saved, *flags, "--training-data", prepared)
    (dense,) = result["protocols"].values()
    assert dense["baselines"]["mean_map"]["abs_rel"] == pytest.approx(0.2)
    assert "mean depth map of the training set: of 1 depth maps" in output
    result, output = score(run, kitti, saved, *flags)
    (dense,) = result["protocols"].values()
    assert dense["baselines"]["mean_map"] is None
    assert "none: the predictions do not name the network's training data" in output
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", *flags,
                            "--training-data", kitti)  # fmt: skip
    assert status == 1
    assert "no train.txt" in errors


def test_training_images_are_not_tested_unless_allowed(kitti, run, tmp_path, write_checkpoint):
    """Neither with the network nor with its predictions: the file of predictions knows what it was trained on."""
    file, saved, result = Path(tmp_path) / "run.pt", Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    write_checkpoint(file, scenes=["2011_09_26_drive_0001_sync_03"])
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--json", result)
    status, _, errors = run(file, *flags, "--save", saved)
    assert status == 1
    assert (
        "was trained on what is to be tested: 2011_09_26_drive_0001, trained on as 2011_09_26_drive_0001_sync_03"
        in errors
    )
    assert not saved.exists()
    allow = "--allow-training-overlap"
    status, output, errors = run(file, *flags, "--save", saved, allow)
    assert status == 0, errors
    assert "WHAT IS TESTED, SO THIS IS NO TEST RESULT" in output
    assert len(json.loads(result.read_text())["training_overlap"]["overlap"]) == 1
    assert run("--predictions", saved, *flags)[0] == 1
    assert run("--predictions", saved, *flags, allow)[0] == 0
    assert "NOT KNOWN" in run("--predictions", save(saved), *flags)[1]


def write_drive(kitti, speeds, seconds=0.1):
    """OXTS packets (forward speed) and the camera's time stamps of the drive."""
    (kitti / DRIVE / "oxts/data").makedirs_p()
    for frame, speed in enumerate(speeds):
        packet = np.zeros(30)
        packet[8] = speed
        (kitti / DRIVE / "oxts/data" / f"{frame:010d}.txt").write_text(" ".join(map(str, packet)) + "\n")
    stamps = [f"2011-09-26 13:00:{seconds * frame:012.9f}\n" for frame in range(len(speeds))]
    (kitti / DRIVE / "image_02/timestamps.txt").write_text("".join(stamps))


def test_scale_from_the_speed_by_hand(kitti, run, tmp_path):
    """10 m/s and 0.1 s: 1 m to each neighbour; the network's distances add up to 0.5, so depth is multiplied by 4."""
    write_drive(kitti, [10.0] * FRAMES)
    for frame in range(FRAMES):
        write_depth_picture(kitti, frame, np.full((HEIGHT, WIDTH), 8.0))
    depth = np.full((FRAMES, 32, 64), 2.0)
    depth[4] = 3.0
    frames = [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    arrays = {"depth": depth, "snippet_frames": np.array(frames), "distances": np.tile([0.2, 0.3], (FRAMES, 1))}
    saved = save(Path(tmp_path) / "depth.npz", change=arrays)
    result, output = score(run, kitti, saved, "--protocol", "dense", "--scaling", "speed")
    (part,) = result["protocols"].values()
    assert part["scale"] == pytest.approx({"median": 4, "mean": 4, "spread": 0, "measured": 5})
    assert part["metrics"]["abs_rel"] == pytest.approx((0 + 0 + 0 + 0 + 0.5) / 5)
    assert "scaling: from the vehicle's speed" in output

    older = {name.replace("distances", "ways"): array for name, array in arrays.items()}  # the key of older versions
    again, _ = score(run, kitti, save(saved, change=older), "--protocol", "dense", "--scaling", "speed")
    assert again["protocols"] == result["protocols"]
    save(saved, change=arrays)

    # While the car stands, the median of the others counts, and the line says so.
    write_drive(kitti, [10.0, 10, 10, 0.5, 0.1])
    result, output = score(run, kitti, saved, "--protocol", "dense", "--scaling", "speed")
    (part,) = result["protocols"].values()
    assert part["scale"]["measured"] == 5  # frames 2 to 4: mean speed 2.8 m/s
    write_drive(kitti, [10.0, 10, 0.9, 0.5, 0.1])
    result, output = score(run, kitti, saved, "--protocol", "dense", "--scaling", "speed")
    (part,) = result["protocols"].values()
    assert part["scale"]["measured"] == 3
    assert "; 2 images taken at less than 1 m/s are scaled by the median of the others" in output
    everything, _ = score(run, kitti, saved, "--protocol", "all")
    assert sum(part["scaling"] == "speed" for part in everything["protocols"].values()) > 0

    for change, expected in (
        ({"distances": np.full((FRAMES, 2), np.nan)}, "prediction 0 ("),
        ({"distances": np.ones((FRAMES, 1))}, "distances of [5, 1] and snippet_frames of [5, 3]"),
        ({"distances": np.zeros((FRAMES, 2))}, "none of the 5 images was taken faster than 1 m/s"),
        ({"snippet_frames": np.array(frames) + 3}, f"{FRAMES:010d}.txt: no such file"),
    ):
        save(saved, change=arrays | change)
        flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--protocol", "dense", "--scaling", "speed")
        status, _, errors = run("--predictions", saved, *flags)
        assert (status, expected in errors, errors.count("\n")) == (1, True, 1), errors


def test_scale_from_the_speed_with_the_network(kitti, checkpoint, run, tmp_path):
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--save", saved, "--json", result)
    status, _, errors = run(checkpoint, *flags, "--scaling", "speed")
    assert status == 1
    assert "oxts/data/0000000000.txt: no such file" in errors
    assert not saved.exists()
    status, output, errors = run(checkpoint, *flags, "--protocol", "all")  # goes on, and says what it did without
    assert status == 0, errors
    assert "left out: scaling speed: " in output

    write_drive(kitti, [10.0] * FRAMES)
    status, output, errors = run(checkpoint, *flags, "--scaling", "speed", "median")
    assert status == 0, errors
    stored = np.load(saved)
    assert stored["snippet_frames"].tolist() == [[0, 1, 2], [0, 1, 2], [1, 2, 3], [2, 3, 4], [2, 3, 4]]
    images = [resize_area(imageio.imread(kitti / name_of(frame)), 32, 64) for frame in (1, 2, 3)]
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        transforms, _ = load_model(checkpoint).pose_net(inputs[1:2], inputs[[0, 2]][None])
    np.testing.assert_allclose(stored["distances"][2], transforms[0, :, :3, 3].norm(dim=1).numpy(), rtol=1e-5)
    parts = json.loads(result.read_text())["protocols"]
    speed = next(part for part in parts.values() if part["scaling"] == "speed")
    assert speed["scale"]["median"] == pytest.approx(np.median(2 / stored["distances"].sum(1)))

    disp_net_alone, networks = Path(tmp_path) / "dispnet.pth.tar", load_model(checkpoint)
    torch.save({"epoch": 1, "state_dict": networks.depth_net.state_dict()}, disp_net_alone)
    flags = (*flags, "--height", 32, "--width", 64, "--scaling", "speed")
    status, _, errors = run(disp_net_alone, *flags)
    assert (status, "holds no pose network; --pose-checkpoint FILE names one" in errors) == (1, True)
    pose_net_alone = Path(tmp_path) / "exp_pose.pth.tar"
    torch.save({"epoch": 1, "state_dict": networks.pose_net.state_dict()}, pose_net_alone)
    assert run(disp_net_alone, *flags, "--pose-checkpoint", pose_net_alone)[0] == 0
    np.testing.assert_array_equal(np.load(saved)["distances"], stored["distances"])


def test_csv_has_every_image(kitti, run, tmp_path):
    saved, file = save(Path(tmp_path) / "depth.npz"), Path(tmp_path) / "images.csv"
    result, _ = score(run, kitti, saved, "--csv", file)
    rows = list(csv.DictReader(file.read_text().splitlines()))
    assert len(rows) == 2 * FRAMES
    assert [row["image"] for row in rows[:FRAMES]] == [name_of(frame) for frame in range(FRAMES)]
    for name, part in result["protocols"].items():
        own = [row for row in rows if row["protocol"] == name]
        for metric in METRICS:
            assert np.mean([float(row[metric]) for row in own]) == pytest.approx(part["metrics"][metric], rel=1e-12)
        constant = np.mean([float(row["best_constant_abs_rel"]) for row in own])
        assert constant == pytest.approx(part["baselines"]["best_constant"]["abs_rel"])
        assert {row["mean_map_abs_rel"] for row in own} == {""}


def test_pictures_of_best_median_and_worst(kitti, run, tmp_path):
    saved, file = save(Path(tmp_path) / "depth.npz"), Path(tmp_path) / "sheet.png"
    _, output = score(run, kitti, saved, "--pictures", file)
    assert f"pictures: {file}" in output
    assert imageio.imread(file).shape[2] in (3, 4)
    (kitti / name_of(0)).write_bytes(b"")
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", "--pictures", file)
    assert status == 1
    assert "0000000000.png: empty file" in errors.splitlines()[-1]


def test_pictures_without_images_are_refused_before_the_work(kitti, run, tmp_path):
    saved, result = save(Path(tmp_path) / "depth.npz"), Path(tmp_path) / "result.json"
    flags = ("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", "--json", result)
    (kitti / name_of(2)).unlink()
    status, output, errors = run(*flags, "--pictures", tmp_path / "sheet.png")
    assert (status, f"{name_of(2)}: no such file, expected the image for --pictures" in errors) == (1, True)
    assert (output, result.exists()) == ("", False)
    assert run(*flags)[0] == 0  # scoring needs none
    status, _, errors = run(*flags, "--pictures", tmp_path / "sheet.jpg")
    assert (status, "sheet.jpg: expected a name that ends in .png" in errors) == (2, True)


def test_flip_average_and_choice_of_checkpoint(kitti, checkpoint, run, tmp_path):
    """A symmetric image: the mirror image's prediction is this one's, and the average changes nothing."""
    folder = Path(tmp_path) / "run"
    folder.makedirs_p()
    checkpoint.copy(folder / "best_abs_rel.pt")
    for frame in range(FRAMES):
        image = imageio.imread(kitti / name_of(frame))
        imageio.imwrite(kitti / name_of(frame), np.concatenate([image[:, :100], image[:, 99::-1]], 1))
    flags = ("--kitti", kitti, "--list", kitti / "list.txt")
    status, output, errors = run(folder, "--which", "abs_rel", *flags)
    assert status == 0, errors
    saved = folder / "best_abs_rel_depth.npz"
    assert f"predictions: {saved}" in output
    plain = np.load(saved)["depth"]
    assert "averaged" not in output
    output = run(folder, "--which", "abs_rel", *flags, "--flip-average")[1]
    assert output.count("; averaged with the mirrored image\n") == 2  # in both protocols' lines
    output = run("--predictions", saved, *flags, "--protocol", "all")[1]  # the file knows it
    assert output.count("5 of 5 images found, 0 missing; averaged with the mirrored image\n") == 2
    flipped = np.load(saved)["depth"]
    np.testing.assert_allclose(flipped, flipped[:, :, ::-1], rtol=1e-4)  # symmetric, which the network alone is not
    assert np.abs(plain - plain[:, :, ::-1]).max() > 1e-3
    status, _, errors = run(folder, *flags)
    assert (status, "last.pt: no such file, found only --which abs_rel" in errors) == (1, True)
    assert "found no checkpoint" in run(kitti, *flags)[2]
    for arguments in (("--predictions", saved, "--which", "last"), ("--predictions", saved, "--flip-average")):
        assert run(*arguments, *flags)[0] == 2
    assert run(checkpoint, "--which", "last", *flags)[0] == 2


def test_depth_maps_of_the_whole_list_in_one_file(kitti, run, tmp_path):
    """As monodepth2 exports them: in the order of the list, which is not that of the predictions."""
    order = [3, 0, 4, 1, 2]
    (kitti / "list.txt").write_text("".join(f"{name_of(frame)}\n" for frame in order))
    truth = np.empty(FRAMES, object)
    truth[:] = [np.full((10 + frame, 20), 5.0 + frame, np.float32) for frame in order]
    file = Path(tmp_path) / "gt_depths.npz"
    np.savez_compressed(file, data=truth)
    depth = np.ones((FRAMES, 10, 20)) * np.arange(5.0, 5 + FRAMES)[:, None, None]
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": depth})
    result, output = score(run, kitti, saved, "--ground-truth", file, "--scaling", "none", "--crop", "none")
    for part in result["protocols"].values():
        assert part["metrics"]["abs_rel"] == pytest.approx(0, abs=1e-7)
    assert "ground truth: depth maps of gt_depths.npz" in output
    np.savez(file, data=truth[:4])
    status, _, errors = run(
        "--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt", "--ground-truth", file.relpath()
    )
    assert status == 1
    assert "4 depth maps, expected one for each of the 5 images" in errors
    assert run("--predictions", saved, "--kitti", kitti, "--ground-truth", "lidar")[0] == 2


def test_two_files_of_one_name_give_two_results(kitti, run, tmp_path):
    files = [Path(tmp_path) / folder / "gt.npy" for folder in ("a", "b")]
    for file, depth in zip(files, (8, 16), strict=True):
        file.parent.makedirs()
        np.save(file, np.full((FRAMES, HEIGHT, WIDTH), depth, np.float32))
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": np.full((FRAMES, 4, 8), 8.0)})
    result, output = score(run, kitti, saved, "--protocol", "paper", "--ground-truth", *files, "--scaling", "none")
    found = {name: part["metrics"]["abs_rel"] for name, part in result["protocols"].items()}
    name = "list.txt/{}/gt.npy/garg/80/none/depth"
    assert found == pytest.approx({name.format("a"): 0, name.format("b"): 0.5})
    assert name.format("b") in output


def test_cap_does_what_its_help_says(kitti, run, tmp_path):
    """Half of the truth lies at 20 m and half at 60 m; the cap is 40 m, and predictions lie at 80 m."""
    truth = np.full((HEIGHT, WIDTH), 20.0)
    truth[:, WIDTH // 2 :] = 60
    for frame in range(FRAMES):
        write_depth_picture(kitti, frame, truth)
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": np.full((FRAMES, 4, 8), 80.0)})
    flags = ("--ground-truth", "improved", "--scaling", "none", "--crop", "none", "--cap", 40)
    for protocol, pixels, error in (("paper", 0.5, 1), ("improved", 1, (1 + 1 / 3) / 2)):
        (part,) = score(run, kitti, saved, "--protocol", protocol, *flags)[0]["protocols"].values()
        assert part["pixels_per_image"] == pixels * HEIGHT * WIDTH
        assert part["metrics"]["abs_rel"] == pytest.approx(error)
    text = " ".join(run("--help")[1].split())
    assert "farthest true depth that counts, and the depth that predictions are clipped to; with the protocol" in text
    assert "improved, farther truth counts, too" in text
    assert "none: predictions are not scaled" in text


@pytest.mark.parametrize("scaling", ["none", "global"])
def test_no_constant_is_better_than_the_best_one(kitti, run, tmp_path, scaling):
    """Images at 4, 4, 16, 16 and 16 m: the median image lies at 16 m, and 4 m has the lowest Abs Rel."""
    depths = (4.0, 4.0, 16.0, 16.0, 16.0)
    for frame, depth in enumerate(depths):
        write_depth_picture(kitti, frame, np.full((HEIGHT, WIDTH), depth))
    saved = save(Path(tmp_path) / "depth.npz")
    flags = ("--protocol", "dense", "--scaling", scaling)
    (part,) = score(run, kitti, saved, *flags)[0]["protocols"].values()
    least = min(np.mean([abs(c - d) / d for d in depths]) for c in np.linspace(3, 20, 1000))
    assert part["baselines"]["best_constant"]["abs_rel"] == pytest.approx(least, rel=5e-3)


@pytest.mark.parametrize("count", [FRAMES - 1, FRAMES + 1])
def test_depth_maps_are_counted_although_an_image_is_missing(kitti, checkpoint, run, tmp_path, count):
    (kitti / name_of(0)).unlink()
    file, saved = Path(tmp_path) / "truth.npy", Path(tmp_path) / "depth.npz"
    np.save(file, np.full((count, HEIGHT, WIDTH), 8, np.float32))
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--save", saved, "--allow-missing")
    status, _, errors = run(checkpoint, *flags, "--ground-truth", file)
    assert (status, errors.count("\n")) == (1, 1), errors
    assert f"truth.npy: {count} depth maps, expected one for each of the 5 images of" in errors
    assert not saved.exists()


def test_missing_files_stop_it_unless_allowed(kitti, checkpoint, run, tmp_path):
    (kitti / name_of(1)).unlink()
    (kitti / DRIVE / "velodyne_points/data/0000000003.bin").unlink()
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    arguments = ("--kitti", kitti, "--list", kitti / "list.txt", "--json", result)
    status, _, errors = run(checkpoint, *arguments, "--save", saved)
    assert status == 1
    assert f"{name_of(1)}: no such file; of the 5 images of" in errors
    assert ", 2 lack their image, ground truth or calibration; --allow-missing" in errors
    assert errors.count("\n") == 1
    assert not saved.exists()

    status, output, errors = run(checkpoint, *arguments, "--save", saved, "--allow-missing")
    assert status == 0, errors
    assert "INCOMPLETE, NOT COMPARABLE WITH FIGURES OF THE WHOLE LIST: 3 OF 5 IMAGES" in output
    images = json.loads(result.read_text())["protocols"]["paper"]["images"]
    assert (images["listed"], images["found"], len(images["missing"])) == (5, 3, 2)

    # The saved file says which images it holds, and is scored again like the first time.
    first = json.loads(result.read_text())["protocols"]
    status, output, errors = run("--predictions", saved, *arguments, "--allow-missing")
    assert status == 0, errors
    assert json.loads(result.read_text())["protocols"] == first
    status, _, errors = run("--predictions", saved, *arguments[:4])
    assert (status, "--allow-missing" in errors) == (1, True)
    imageio.imwrite(kitti / name_of(1), np.zeros((HEIGHT, WIDTH, 3), np.uint8))
    assert run("--predictions", saved, *arguments, "--allow-missing")[0] == 0
    again = json.loads(result.read_text())["protocols"]["paper"]
    assert again["metrics"] == first["paper"]["metrics"]
    assert again["images"]["missing"][0] == f"prediction of {name_of(1)}"

    (kitti / "2011_09_26/calib_velo_to_cam.txt").unlink()
    status, _, errors = run(checkpoint, *arguments, "--save", saved, "--allow-missing")
    assert status == 1
    assert "5 lack" in errors


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        ("", "the list is empty"),
        ("2011_09_26/x/image_02/data/0.png 5\n", "is not an image's path"),
        (f"{DRIVE} 5 m\n", "is not an image's path"),
        ("../../etc/passwd\n", "leads out of its folder"),
        ("image.png\n", "not the name of a KITTI raw image"),
        (f"{name_of(0)}\n{name_of(0)}\n", "twice"),
    ],
)
def test_bad_lists(kitti, run, tmp_path, listed, expected):
    (kitti / "list.txt").write_text(listed)
    saved = save(Path(tmp_path) / "depth.npz")
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt")
    assert status == 1
    assert expected in errors
    assert errors.count("\n") == 1


@pytest.mark.parametrize(
    ("frames", "change", "expected"),
    [
        (range(4), {}, r"(1 lack a prediction, 0 are not listed)"),
        (range(6), {}, r"(0 lack a prediction, 1 are not listed)"),
        (range(5), {"depth": np.ones((4, 32, 64), np.float32)}, "expected [5, height, width]"),
        (range(5), {"depth": np.ones((5, 32, 64), np.int64)}, "int64"),
        (range(5), {"files": np.arange(5)}, "expected arrays 'files'"),
        (range(5), {"depth": np.full((5, 32, 64), 1e-300)}, "depths are outside 1e-20 to 1e+20"),
    ],
)
def test_predictions_that_do_not_fit(kitti, run, tmp_path, frames, change, expected):
    saved = save(Path(tmp_path) / "depth.npz", frames, change)
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt")
    assert status == 1
    assert expected in errors
    assert "Traceback" not in errors


def test_predictions_of_another_list_are_no_incomplete_ones(kitti, run, tmp_path):
    saved = save(Path(tmp_path) / "depth.npz", range(FRAMES, FRAMES + 2))
    flags = ("--kitti", kitti, "--list", kitti / "list.txt", "--allow-missing")
    status, _, errors = run("--predictions", saved, *flags)
    assert status == 1
    assert "predictions of 2 images do not fit the list of 5" in errors


def test_a_prediction_that_is_not_finite_is_named(kitti, run, tmp_path):
    depth = np.ones((5, 32, 64), np.float32)
    depth[2, 3, 4] = np.nan
    saved = save(Path(tmp_path) / "depth.npz", change={"depth": depth})
    status, _, errors = run("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt")
    assert status == 1
    assert f"depth.npz, prediction 2 ({name_of(2)}): 1 of 2048 depths are not finite" in errors


def test_damaged_files_are_errors_with_their_name(kitti, run, tmp_path):
    saved = save(Path(tmp_path) / "depth.npz")
    flags = ("--predictions", saved, "--kitti", kitti, "--list", kitti / "list.txt")
    scan = kitti / DRIVE / "velodyne_points/data/0000000003.bin"
    scan.write_bytes(scan.read_bytes()[:-7])
    status, _, errors = run(*flags)
    assert (status, "0000000003.bin" in errors) == (1, True)
    scan.write_bytes(np.array([[-5, 0, 0, 0]], "<f4").tobytes())  # no point ahead: no ground truth
    status, _, errors = run(*flags)
    assert (status, f"prediction 3 ({name_of(3)}): the ground truth has no depth" in errors) == (1, True)
    saved.write_bytes(saved.read_bytes()[:-100])
    status, _, errors = run(*flags)
    assert (status, "not a whole file of predictions" in errors) == (1, True)


def test_a_damaged_image_leaves_older_predictions_as_they_were(kitti, checkpoint, run, tmp_path):
    saved = save(Path(tmp_path) / "depth.npz")
    before = saved.read_bytes()
    image = kitti / name_of(3)
    image.write_bytes(image.read_bytes()[:1000])
    status, _, errors = run(checkpoint, "--kitti", kitti, "--list", kitti / "list.txt", "--save", saved)
    assert status == 1
    assert "0000000003.png" in errors
    assert saved.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "status", "expected"),
    [
        ((), 2, "--kitti"),
        (("--kitti", "k"), 2, "either a CHECKPOINT"),
        (("a.pt", "--predictions", "b.npz", "--kitti", "k"), 2, "either a CHECKPOINT"),
        (("--predictions", "b.npz", "--save", "c.npz", "--kitti", "k"), 2, "--save goes with"),
        (
            ("--predictions", "b.npz", "--kitti", "k", "--height", "5", "--device", "nonsense"),
            2,
            "--height and --device: only with a CHECKPOINT, here nothing is predicted",
        ),
        (("a.pt", "--kitti", "k", "--cap", "0"), 2, "--cap"),
        (("a.pt", "--kitti", "k", "--cap", "0.0001"), 2, "above 0.001"),
        (("a.pt", "--kitti", "k", "--crop", "grag"), 2, "--crop"),
        (("a.pt", "--kitti", "no/such/folder"), 1, "--kitti no/such/folder: no such folder"),
        (("a.pt", "--kitti", ".", "--list", "no_list.txt"), 1, "no_list.txt: no such file"),
        (("a.pt", "--kitti", "KITTI", "--list", "KITTI"), 1, "is a folder, expected a text file"),
        (("a.pt", "--kitti", ".", "--json", "no/folder/r.json"), 1, "no such folder"),
        (("no.pt", "--kitti", "KITTI", "--list", "KITTI/list.txt"), 1, "no.pt: no such file"),
        (("KITTI/list.txt", "--kitti", "KITTI", "--list", "KITTI/list.txt"), 1, "list.txt"),
        (("CKPT", "--kitti", "KITTI", "--list", "KITTI/list.txt", "--height", "16"), 1, "from 32 on"),
        (("CKPT", "--kitti", "KITTI", "--list", "KITTI/list.txt", "--save", "no/d.npz"), 1, "--save no/d.npz"),
        (("--predictions", "no.npz", "--kitti", "KITTI", "--list", "KITTI/list.txt"), 1, "no.npz: no such file"),
    ],
)
def test_wrong_use(kitti, checkpoint, run, arguments, status, expected):
    arguments = [text.replace("KITTI", kitti).replace("CKPT", checkpoint) for text in arguments]
    found, _, errors = run(*arguments)
    assert found == status
    assert expected in errors
    assert "Traceback" not in errors


def test_a_pose_checkpoint_is_refused(kitti, run, tmp_path):
    file = Path(tmp_path) / "exp_pose.pth.tar"
    torch.save({"epoch": 1, "state_dict": PoseExpNet(2, False).state_dict()}, file)
    status, _, errors = run(file, "--kitti", kitti, "--list", kitti / "list.txt")
    assert status == 1
    assert "no depth network" in errors


def test_help_teaches(run):
    status, output, _ = run("--help")
    assert status == 0
    assert "python test_depth.py runs/my_run/last.pt --kitti KITTI_RAW" in output


def test_real_frames(shared, run, tmp_path):
    """The reference predictions through the script: the published figures come out of the file and the scans."""
    drive = "2011_09_26/2011_09_26_drive_0000_sync"
    reference = np.load(shared / "reference/depth_metrics.npz")
    names = [f"{drive}/image_02/data/{frame:010d}.png" for frame in reference["frames"]]
    (tmp_path / "list.txt").write_text("\n".join(names))
    saved, result = Path(tmp_path) / "depth.npz", Path(tmp_path) / "result.json"
    arrays = {"files": np.array(names), "depth": reference["predicted_depth"]}
    test_depth.save_predictions(saved, "depth", arrays, {})
    flags = ("--kitti", shared / "kitti_raw", "--list", tmp_path / "list.txt", "--json", result)
    for kind in ("velodyne_x", "camera_z"):
        status, _, errors = run("--predictions", saved, *flags, "--ground-truth", kind)
        assert status == 0, errors
        for row in json.loads(result.read_text())["protocols"].values():
            expected = reference[f"depth_cap{row['cap']:.0f}_{kind}"]
            assert [row["metrics"][name] for name in METRICS] == pytest.approx(expected, rel=1e-6)
