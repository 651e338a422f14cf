"""Time depth evaluation on one core: a true depth map from a LiDAR scan, and scoring an image."""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import numpy as np
import torch
from path import Path

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, positive_int, run_script

from benchmarks.surroundings import device_name
from datasets.formats import kitti
from evaluation.depth_scoring import ImageSet, Predictions, score
from evaluation.metrics.depth_protocols import PROTOCOLS, DepthTest, matrix, name_of
from evaluation.predictions import Rows, load_depth, save_predictions

DESCRIPTION = """\
Time depth evaluation on one core: a true depth map from a LiDAR scan, and scoring an image.

Times are the processor's (process_time), of one thread, files in the operating system's cache. Without a scan of
KITTI's it makes one of as many points: rings on a road between two rows of walls.

  python benchmarks/evaluation.py
  python benchmarks/evaluation.py --scan KITTI_RAW/DATE/DRIVE/velodyne_points/data/0000000000.bin"""

POINTS = 115_000
NAME = "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000000.png"


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--scan", type=Path, metavar="FILE.bin", help="a scan of KITTI raw, with its DATE's calibration"
    )
    parser.add_argument("--rounds", type=positive_int, default=30, help="(default: 30)")
    parser.add_argument("--images", type=positive_int, default=697, help="of a whole list (default: 697, Eigen's)")
    parser.add_argument("--workers", type=positive_int, default=2, help="threads for the whole list (default: 2)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        root = make_kitti(Path(folder), args.scan)
        date, drive = NAME.split("/")[:2]
        scan = root / date / drive / "velodyne_points/data/0000000000.bin"
        velo_to_cam = kitti.read_rigid_calibration(root / date / "calib_velo_to_cam.txt")
        cam_to_cam = kitti.read_raw_calibration(root / date, "02")
        print(f"{device_name(torch.device('cpu'))}; scan of {scan.size // 16} points; best and median, ms")
        width, height = map(round, cam_to_cam["S_rect_02"])
        for shape in ((height, width), (128, 416)):
            for kind in kitti.DEPTH_KINDS:

                def make(shape: tuple[int, int] = (shape[0], shape[1]), kind: str = kind) -> None:
                    points = kitti.read_velodyne(scan)
                    kitti.lidar_depth_map(points, velo_to_cam, cam_to_cam, "02", shape, kind)

                seconds = measure(make, args.rounds)
                report(f"depth map {shape[1]} x {shape[0]}, {kind}, with reading", seconds)
        predicted = np.random.default_rng(0).uniform(2, 60, (128, 416)).astype(np.float32)
        predictions = Predictions(Path("none"), {NAME: predicted}, {})
        mean_map = np.full((128, 416), 15.0)
        every = matrix([("eigen", "velodyne_x"), ("eigen", "camera_z")], ["median", "global", "none"])
        for title, tests, rounds in (
            ("paper", [PROTOCOLS["paper"]], args.rounds),
            (f"{len(every)} protocols", every, max(2, args.rounds // 10)),
        ):
            seconds = measure(lambda: score_one(tests, predictions, mean_map, root), rounds)  # noqa: B023
            report(f"{title}, with baselines", seconds)
        time_whole_list(root, predicted, mean_map, args.images, args.workers)


def time_whole_list(root: Path, predicted: np.ndarray, mean_map: np.ndarray, images: int, workers: int) -> None:
    """Print the seconds in which a whole list is scored, its truth made from scans, its predictions in a file."""
    date, drive = NAME.split("/")[:2]
    scans = root / date / drive / "velodyne_points/data"
    names = [NAME.replace("0000000000", f"{number:010d}") for number in range(images)]
    for number in range(1, images):
        os.link(scans / "0000000000.bin", scans / f"{number:010d}.bin")
    file = root / "predictions.npz"
    depth = Rows((images, *predicted.shape), np.float32, (predicted for _ in range(images)))
    save_predictions(file, "depth", {"files": np.array(names), "depth": depth}, {})
    test = PROTOCOLS["paper"]
    sets = {(test.images, test.ground_truth): ImageSet("list", names, names, [])}
    start, processor = time.perf_counter(), time.process_time()
    predictions = Predictions(file, load_depth(file)[0], {})
    score({name_of(test): test}, sets, predictions, mean_map, {}, root, workers, quiet=True)
    seconds, processor = time.perf_counter() - start, time.process_time() - processor
    print(f"{images} images by paper, {workers} threads: {seconds:.1f} s, {processor:.1f} s of processor time")


def score_one(tests: list[DepthTest], predictions: Predictions, mean_map: np.ndarray, root: Path) -> None:
    sets = {(test.images, test.ground_truth): ImageSet("list", [NAME], [NAME], []) for test in tests}
    score({name_of(test): test for test in tests}, sets, predictions, mean_map, {}, root, 1, quiet=True)


def make_kitti(root: Path, scan: Path | None) -> Path:
    """A folder with one scan in KITTI's layout: the given one, or one that is made."""
    date, drive = NAME.split("/")[:2]
    (root / date / drive / "velodyne_points/data").makedirs_p()
    target = root / date / drive / "velodyne_points/data/0000000000.bin"
    if scan:
        scan.copy(target)
        for name in ("calib_velo_to_cam.txt", "calib_cam_to_cam.txt"):
            (scan.absolute().parent.parent.parent.parent / name).copy(root / date / name)
        return root
    # About KITTI's own camera and place of the LiDAR.
    projection = "721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003"
    (root / date / "calib_cam_to_cam.txt").write_text(
        f"R_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: 1242 375\nP_rect_02: {projection}\n"
    )
    (root / date / "calib_velo_to_cam.txt").write_text("R: 0 -1 0 0 0 -1 1 0 0\nT: 0 -0.08 -0.27\n")
    azimuth = np.linspace(-np.pi, np.pi, POINTS // 64, endpoint=False)
    elevation = np.radians(np.linspace(2, -24.8, 64))[:, None]
    direction = np.stack(
        np.broadcast_arrays(
            np.cos(elevation) * np.cos(azimuth), np.cos(elevation) * np.sin(azimuth), np.sin(elevation)
        ),
        -1,
    )
    with np.errstate(divide="ignore"):
        ground = np.where(direction[..., 2] < 0, -1.73 / direction[..., 2], np.inf)
        walls = 8 / np.abs(direction[..., 1])
    points = direction * np.minimum(np.minimum(ground, walls), 70)[..., None]
    np.concatenate([points, np.zeros_like(points[..., :1])], -1).astype("<f4").tofile(target)
    return root


def measure(work: Callable[[], object], rounds: int) -> list[float]:
    work()
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return seconds


def report(title: str, seconds: list[float]) -> None:
    print(f"{title:55s}{1000 * min(seconds):8.2f}{1000 * statistics.median(seconds):8.2f}")


if __name__ == "__main__":
    run_script(main)
