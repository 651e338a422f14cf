"""From a download to the tables, with the scripts as users type them."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from path import Path
from PIL import Image
from scipy.spatial.transform import Rotation

from datasets.layout import write_intrinsics, write_scene_names
from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from files.images import write_jpeg
from models.checkpoint import load_model

ROOT = Path(__file__).absolute().parent.parent


def script(*words: object) -> str:
    """Run a script of the project; its standard output."""
    command = [sys.executable, *(str(word) for word in words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture
def script_here(script_here, capsys):
    """Run a script of the project in this process; its standard output."""

    def run(file: str, *words: object) -> str:
        capsys.readouterr()
        script_here(file, *words)
        return capsys.readouterr().out

    return run


def row(table: str) -> str:
    """The line of the paper's protocol."""
    (line,) = (line for line in table.splitlines() if line.startswith("paper "))
    return line


@pytest.mark.slow
def test_from_a_download_to_the_tables(script_here, tmp_path):
    """A small world stands in for KITTI: it has the same layouts, and nothing in the scripts knows it."""
    folder = Path(tmp_path)
    world, prepared, runs = folder / "world", folder / "prepared", folder / "runs"
    size = ("--height", 64, "--width", 96)
    script_here("data/make_world.py", world, "--drives", 3, "--frames", 8, *size, "--mono", "--no-halts", "--jobs", 1)
    test_drives = world / "splits/test_scenes.txt"

    script_here(
        *("data/prepare_kitti.py", world / "raw", prepared, *size, "--with-depth", "--with-poses", "--jobs", 1),
        *("--test-scenes", test_drives, "--static", "none"),
    )
    trained_on = (prepared / "train.txt").read_text().split() + (prepared / "val.txt").read_text().split()
    assert not any(drive in scene for scene in trained_on for drive in test_drives.read_text().split())

    short = ("--steps", 4, "--batch-size", 2, "--workers", 1, "--network-width", 1 / 8)
    script_here("train.py", prepared, *short, "--runs", runs, "--name", "run")
    lines = [json.loads(line) for line in (runs / "run/metrics.jsonl").read_text().splitlines()]
    (validation,) = (line for line in lines if line["split"] == "validation")
    assert validation["abs_rel"] > 0
    assert validation["ate"] > 0
    checkpoint = runs / "run/best_abs_rel.pt"

    images = world / "splits/test_files.txt"
    table = script_here(
        "test_depth.py", checkpoint, "--kitti", world / "raw", "--list", images, "--json", folder / "d.json"
    )
    assert "protocol" in table
    predictions = runs / "run/best_abs_rel_depth.npz"
    scored = script_here("test_depth.py", "--predictions", predictions, "--kitti", world / "raw", "--list", images)
    assert row(scored) == row(table)
    assert (folder / "d.json").is_file()

    sequence = max(file.stem for file in (world / "odometry/poses").files("*.txt"))
    table = script(
        *("test_pose.py", checkpoint, "--kitti", world / "odometry", "--sequences", sequence),
        *("--json", folder / "p.json"),
    )
    (result,) = json.loads((folder / "p.json").read_text())["results"]
    assert result["snippets"] == 8 - 3 + 1
    assert result["frames"] == 3
    assert f"{result['ate']['mean']:.4f}" in table


@pytest.mark.slow
def test_cityscapes_then_kitti_then_make3d(script_here, make3d, tmp_path):
    """The paper's way to its generalisation table, on small files in the formats of the three data sets."""
    folder = Path(tmp_path)
    size = ("--height", 64, "--width", 96)
    short = ("--steps", 2, "--batch-size", 2, "--workers", 1, "--network-width", 1 / 8)
    short += ("--device", "cpu", "--runs", folder / "runs")
    write_cityscapes(folder / "cityscapes")
    script_here("data/prepare_cityscapes.py", folder / "cityscapes", folder / "prepared/cityscapes", *size)
    script_here("train.py", folder / "prepared/cityscapes", "--name", "cityscapes", *short)

    write_prepared_kitti(folder / "prepared/kitti")
    first = folder / "runs/cityscapes/last.pt"
    script_here(
        "train.py", folder / "prepared/kitti", "--start-from", first, "--learning-rate", 2e-5, "--name", "both", *short
    )
    before, after = (load_model(folder / f"runs/{name}/last.pt").depth_net for name in ("cityscapes", "both"))
    for old, new in zip(before.parameters(), after.parameters(), strict=True):
        assert (old - new).abs().max() < 1e-4  # two steps of 2e-5: the second training began with the first's weights
    assert any(not torch.equal(old, new) for old, new in zip(before.parameters(), after.parameters(), strict=True))

    results = folder / "r.json"
    checkpoint = folder / "runs/both/last.pt"
    table = script_here("test_make3d.py", checkpoint, "--make3d", make3d, "--json", results)
    assert "protocol: 134 of the 134 test images of Make3D" in table
    result = json.loads(results.read_text())
    assert f"{result['result']['abs_rel']:.4f}" in table
    assert result["baselines"]["constant"]["abs_rel"] > 0


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["tum", "euroc"])
def test_a_recording_with_true_poses_to_scored_trajectories(layout, script_here, tmp_path):
    """TUM RGB-D's and EuRoC's folders, prepared, trained on for two steps, and predicted."""
    folder = Path(tmp_path)
    recording, prepared, runs = folder / "room", folder / "prepared", folder / "runs"
    options = WorldOptions(drives=2, frames=24, width=128, height=64, halts=False)
    drive = list_drives(options)[1]
    renderer = make_drive_renderer(options, drive)
    images = [renderer.image(number, drive.intrinsics, 64, 128) for number in range(24)]
    poses = np.asarray(renderer.scene.world_from_camera)[:24]
    calibration = {"tum": write_tum, "euroc": write_euroc}[layout](recording, images, poses, drive.intrinsics)

    printed = script_here(
        "data/prepare_video.py", recording, prepared, "--jobs", 1, "--val-fraction", 0.2, "--width", 128, *calibration
    )
    assert "K is a guess" not in printed
    scenes = [(prepared / name).read_text().strip() for name in ("train.txt", "val.txt")]
    small = ("--depth-net", "disp_net", "width=0.0625", "--pose-net", "pose_exp_net", "width=0.0625")
    script_here(
        "train.py", prepared, *small, "--steps", 2, "--batch-size", 2, "--workers", 1, "--runs", runs, "--name", "a"
    )
    lines = [json.loads(line) for line in (runs / "a/metrics.jsonl").read_text().splitlines()]
    assert any(line["split"] == "validation" and line["ate"] > 0 for line in lines)

    results = folder / "results"
    script_here(
        "predict.py", runs / "a", *(prepared / scene for scene in scenes), "--out", results, "--write", "trajectory"
    )
    clips = json.loads((results / "predict.json").read_text())["clips"]
    first = prepared / scenes[0] / "poses.txt"
    count = len(first.read_text().splitlines())
    assert clips[scenes[0]]["frames"] == count >= 15
    path = np.linalg.norm(np.diff(poses[:count, :3, 3], axis=0), axis=1).sum()
    assert clips[scenes[0]]["trajectory"]["path_m"] == pytest.approx(path, rel=1e-3)
    for scene in scenes:
        assert clips[scene]["camera"]["source"] == f"{prepared / scene}/cam.txt"
        np.testing.assert_allclose(clips[scene]["camera"]["K"], drive.intrinsics, atol=0.01)


def write_tum(root: Path, images: list, poses: np.ndarray, intrinsics: np.ndarray) -> tuple:
    """A folder as TUM RGB-D has it: rgb.txt and groundtruth.txt. It has no calibration, so the flags give one."""
    (root / "rgb").makedirs()
    rows, truth = [], []
    for number, (image, pose) in enumerate(zip(images, poses, strict=True)):
        time = 1305031102.1 + number / 10
        Image.fromarray(image).save(root / f"rgb/{time:.6f}.png")
        rows.append(f"{time:.6f} rgb/{time:.6f}.png")
        numbers = (*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat())
        truth.append(f"{time:.4f} {' '.join(f'{number:.9f}' for number in numbers)}")
    (root / "rgb.txt").write_text("\n".join(["# color images", *rows, ""]))
    (root / "groundtruth.txt").write_text("\n".join(["# ground truth", *truth, ""]))
    (fx, _, cx), (_, fy, cy) = intrinsics[:2]
    file = root.parent / "cameras.txt"  # COLMAP's pixel centres are at 0.5
    file.write_text(f"1 PINHOLE {images[0].shape[1]} {images[0].shape[0]} {fx} {fy} {cx + 0.5} {cy + 0.5}\n")
    return "--calibration", file


def write_euroc(root: Path, images: list, poses: np.ndarray, intrinsics: np.ndarray) -> tuple:
    """A folder as EuRoC has it; the camera is mounted a quarter turn from the body, whose poses are stated."""
    camera = (root / "mav0/cam0").makedirs_p()
    (camera / "data").makedirs()
    body_from_camera = np.eye(4)
    body_from_camera[:3, :3] = Rotation.from_euler("z", 90, degrees=True).as_matrix()
    body_from_camera[:3, 3] = [0.1, 0.2, 0.3]
    rows, truth = ["#timestamp [ns],filename"], ["#timestamp, p_RS_R_x [m], ..."]
    for number, (image, pose) in enumerate(zip(images, poses, strict=True)):
        time = 1403636579763555584 + 100_000_000 * number
        Image.fromarray(image).convert("L").save(camera / f"data/{time}.png")
        rows.append(f"{time},{time}.png")
        body = pose @ np.linalg.inv(body_from_camera)
        x, y, z, w = Rotation.from_matrix(body[:3, :3]).as_quat()
        truth.append(f"{time},{','.join(f'{v:.9f}' for v in (*body[:3, 3], w, x, y, z))},0,0,0")
    (camera / "data.csv").write_text("\r\n".join([*rows, ""]))
    (fx, _, cx), (_, fy, cy) = intrinsics[:2].tolist()
    (camera / "sensor.yaml").write_text(
        f"T_BS:\n  cols: 4\n  rows: 4\n  data: {body_from_camera.ravel().tolist()}\n"
        f"resolution: [{images[0].shape[1]}, {images[0].shape[0]}]\nintrinsics: [{fx}, {fy}, {cx}, {cy}]\n"
        "distortion_model: radial-tangential\ndistortion_coefficients: [0.0, 0.0, 0.0, 0.0]\n"
    )
    (root / "mav0/state_groundtruth_estimate0").makedirs()
    (root / "mav0/state_groundtruth_estimate0/data.csv").write_text("\n".join([*truth, ""]))
    return ()


def write_cityscapes(root: Path) -> None:
    """Two cities, the first ten frames of one sequence each: driving towards a wall, which grows."""
    for number, city in enumerate(("aachen", "bochum")):
        images, cameras = (
            (root / f"{package}/train" / city).makedirs_p() for package in ("leftImg8bit_sequence", "camera")
        )
        texture = np.random.default_rng(number).uniform(0, 255, (16, 32, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        for frame in range(10):
            picture = Image.fromarray(texture).resize((128, 64), box=(2 * frame, frame, 256 - 2 * frame, 128 - frame))
            picture.save(images / f"{city}_000000_{frame:06d}_leftImg8bit.png")
        camera = {"intrinsic": {"fx": 2262.52, "fy": 2265.3, "u0": 1096.98, "v0": 513.137}}
        (cameras / f"{city}_000000_000019_camera.json").write_text(json.dumps(camera))


def write_prepared_kitti(root: Path) -> None:
    """What prepare_kitti.py makes of a drive for training, and of one for validation."""
    for drive, side in (("2011_09_26_drive_0001_sync_02", "train"), ("2011_09_26_drive_0005_sync_02", "val")):
        (root / drive).makedirs_p()
        texture = np.random.default_rng(0).uniform(0, 255, (8, 16, 3)).astype(np.uint8).repeat(8, 0).repeat(8, 1)
        for frame in range(4):
            write_jpeg(root / drive / f"{frame:07d}.jpg", np.roll(texture, -2 * frame, axis=1)[:, :96])
        write_intrinsics(root / drive / "cam.txt", np.array([[56.0, 0, 47], [0, 60, 31], [0, 0, 1]]))
        write_scene_names(root / f"{side}.txt", [drive])
