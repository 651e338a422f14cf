"""The whole job on a synthetic world: render, prepare, train, and test on drives that training never saw."""

import argparse
import json
import os
import platform
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from path import Path

from cli.flags import add_device_flag, choose_device, non_negative_int, positive_int, run_script
from cli.tables import table
from datasets.augmentation import normalise
from files.atomic import write_json
from files.errors import InputError
from files.images import read_depth_picture
from files.text import read_json, read_names
from inference.depth import read_resized
from models.checkpoint import load_model
from models.encoder_weights import IMAGENET
from training.logger import read_metrics

ROOT = Path(__file__).absolute().parent
BATCH_SIZE = 8
ENCODER_RATE = 0.3  # of an encoder that is not new
TRAINING = ("--recipe", "small")  # docs/experiments.md has the comparisons
# Without --steps the training gets the rest of ten minutes, less a reserve and the time of the tests.
TOTAL_SECONDS, TEST_SECONDS, MIN_STEPS, MAX_STEPS = 570, 20, 500, 3000
FLOAT32, BF16 = ["--precision", "float32"], ["--precision", "bf16", "--channels-last"]
PICTURED = 5  # test images in the picture of depths
DESCRIPTION = """\
Render a small world of streets, prepare it, train on it, test on drives that training never saw, and print the errors
of depth and motion beside those of simple baselines. Nothing is downloaded.

  make demo                     also makes the environment
  python demo.py --steps 4000   trains longer

Everything is written to one folder: demo/results.json, demo/pictures, the world, the prepared data and the run, which
`tensorboard --logdir demo/runs` shows. After Ctrl-C the same command continues: every script does what is missing."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("demo"), help="output folder, a new one or that of a demo (default: demo)")
    add(
        "--steps",
        type=positive_int,
        help="training steps (default: those of the last run in the folder; without one as many as let the whole demo "
        f"take about {TOTAL_SECONDS // 60} minutes, at most {MAX_STEPS})",
    )
    add("--drives", type=positive_int, default=40, help="drives of the world, a fifth for testing (default: 40)")
    add("--frames", type=positive_int, default=36, help="frames per drive (default: 36)")
    add("--width", type=positive_int, default=208, help="image width in pixels (default: 208)")
    add("--height", type=positive_int, default=64, help="image height in pixels (default: 64)")
    add("--seed", type=non_negative_int, default=0, help="seed of the world and of the training (default: 0)")
    weights = "first weights of the depth network's MobileNetV2: imagenet (downloaded), or torchvision's FILE of them"
    add("--encoder-weights", type=Path, metavar="imagenet|FILE", help=f"{weights} (default: random weights)")
    add_device_flag(parser)
    args = parser.parse_args()
    if args.drives < 3:
        parser.error(f"--drives {args.drives}: expected 3 or more: for training, for validation and for testing")
    if args.frames < BATCH_SIZE + 2:
        parser.error(f"--frames {args.frames}: expected {BATCH_SIZE + 2} or more, which make a batch of snippets of 3")
    weights = args.encoder_weights
    if weights not in (None, IMAGENET) and not weights.is_file():
        parser.error(
            f"--encoder-weights {weights}: no such file, expected mobilenet_v2-b0353104.pth of torchvision, or "
            "imagenet, which downloads it"
        )
    return args


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    folder = args.folder
    check_folder(folder)
    world, prepared, runs, pictures = folder / "world", folder / "prepared", folder / "runs", folder / "pictures"
    depth_json, pose_json, images = folder / "depth.json", folder / "pose.json", world / "splits/test_files.txt"
    size = ("--width", args.width, "--height", args.height)
    seed, on_device = ("--seed", args.seed), ("--device", device)
    seconds: dict[str, float] = {}

    command = ["data/make_world.py", world, "--drives", args.drives, "--frames", args.frames, *size, *seed]
    run(seconds, "world", [*command, "--mono", "--dense-depth"])
    command = ["data/prepare_kitti.py", world / "raw", prepared, *size, "--cameras", "02", "--static", "speed"]
    command += ["--with-depth", "--with-poses", "--test-scenes", world / "splits/test_scenes.txt"]
    run(seconds, "prepare", command)

    steps = args.steps or steps_of_last_run(runs)
    train = ["train.py", prepared, *seed, *TRAINING, *on_device]
    if args.encoder_weights is not None:
        train += ["--encoder-weights", args.encoder_weights, "--encoder-rate", ENCODER_RATE]
    train += precision_flags(device, runs / f"steps_{steps}/config.json")
    if steps is None:
        steps = affordable_steps(seconds, train, folder)
        print(f"\n{steps} steps are what this machine has time for; --steps {steps} repeats this run", flush=True)
    train += ["--steps", steps]
    run_folder = runs / f"steps_{steps}"
    checkpoint = run_folder / "last.pt"
    if checkpoint.is_file():
        run(seconds, "train", ["train.py", "--resume", run_folder, *on_device])
    else:
        run(seconds, "train", [*train, "--runs", runs, "--name", run_folder.name])
    check_is_trained(run_folder, steps)

    command = ["test_depth.py", checkpoint, "--kitti", world / "raw", "--list", images, "--protocol", "dense"]
    command += ["--crop", "garg", "--training-data", prepared, "--json", depth_json, *on_device]
    run(seconds, "test_depth", command)
    pictures.makedirs_p()
    command = ["test_pose.py", checkpoint, "--kitti", world / "odometry", "--sequences", *test_sequences(world)]
    command += ["--json", pose_json, "--export", pictures / "trajectories", *on_device]
    run(seconds, "test_pose", command)
    start = time.perf_counter()
    rows = predict_pictures(checkpoint, world / "raw", read_names(images), (args.height, args.width))
    draw_pictures(rows, pictures / "depth.png")
    seconds["pictures"] = time.perf_counter() - start

    results = summarise(depth_json, pose_json, seconds, steps, str(device))
    results["training"] = shlex.join(map(str, train))
    write_json(folder / "results.json", results)
    print_results(results, folder)


def check_folder(folder: Path) -> None:
    """InputError if the folder has other contents than a demo's, which begins with its world."""
    if folder.exists() and not (folder / "world").is_dir() and (not folder.is_dir() or os.listdir(folder)):
        raise InputError(
            f"{folder}: has other contents, expected a new or empty folder, or that of an earlier demo; "
            "choose another --folder"
        )


def run(seconds: dict[str, float], name: str, command: list[Any]) -> None:
    """Run a script of the project, print its command, and note its time under `name`.

    Ctrl-C and SIGTERM let the script end in order, and then end the demo.

    Raises:
        InputError: the script failed.
        KeyboardInterrupt: a signal came.
    """
    words = [str(word) for word in command]
    print(f"\n[{name}]\n$ python {shlex.join(words)}", flush=True)
    start = time.perf_counter()
    signals: list[int] = []
    script = subprocess.Popen([sys.executable, ROOT / words[0], *words[1:]])

    def forward(number: int, frame: Any) -> None:
        signals.append(number)
        if number == signal.SIGTERM:  # the terminal sends Ctrl-C to the script itself
            script.terminate()

    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signals:
        raise KeyboardInterrupt
    if status:
        raise InputError(f"{words[0]} failed with exit status {status}, see above; the same command continues")
    seconds[name] = time.perf_counter() - start


def steps_of_last_run(runs: Path) -> int | None:
    """The length of the run that was trained last; None if there is no run."""
    folders = [folder for folder in runs.dirs("steps_*") if folder.name[6:].isdecimal()] if runs.is_dir() else []
    if not folders:
        return None
    return int(max(folders, key=lambda folder: os.stat(folder).st_mtime).name[6:])


def check_is_trained(run_folder: Path, steps: int) -> None:
    """InputError if the training was stopped. Its last step is validated, and the validation is logged last."""
    if read_metrics(run_folder / "metrics.jsonl")[-1]["step"] < steps:
        raise InputError(f"{run_folder}: the training was stopped before step {steps}; the same command continues it")


def precision_flags(device: torch.device, config: Path) -> list[str]:
    """The precision of the run with this config.json; for a new run bfloat16 where it makes a CPU much faster (AMX)."""
    if config.is_file():
        options = read_json(config).get("options")
        return BF16 if isinstance(options, dict) and options.get("precision") == "bf16" else FLOAT32
    if device.type != "cpu" or bf16_speedup() <= 1.5:
        return FLOAT32
    print("\nthis processor is much faster in bfloat16: the convolutions of the training will use it", flush=True)
    return BF16


def bf16_speedup() -> float:
    """Time of some convolutions with their gradients on this CPU in float32, divided by that in bfloat16.

    Measured: 2.5 to 3 with AMX, 0.7 with AVX-512's own bfloat16 instructions, 0.1 to 0.3 with neither.
    """
    layers = [torch.nn.Conv2d(32, 32, 3, padding=1) for _ in range(4)]
    network = torch.nn.Sequential(*layers).to(memory_format=torch.channels_last)
    image = torch.rand(BATCH_SIZE, 32, 32, 104)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(4):
        for bf16, times in seconds.items():
            start = time.perf_counter()
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                features = network(image)
            features.float().sum().backward()
            times.append(time.perf_counter() - start)
    return min(seconds[False]) / min(seconds[True])


def affordable_steps(seconds: dict[str, float], train: list[Any], folder: Path) -> int:
    """Training steps for which the whole demo takes about `TOTAL_SECONDS`, from the speed of 40 steps."""
    # In a folder of a new name, so that removing it removes nothing else.
    with tempfile.TemporaryDirectory(prefix="speed-", dir=folder) as runs:
        flags = ["--runs", runs, "--name", "run", "--steps", 40, "--log-every", 10, "--no-check"]
        run(seconds, "speed", [*train, *flags])
        records = read_metrics(Path(runs) / "run/metrics.jsonl")
    return steps_in(TOTAL_SECONDS - TEST_SECONDS - sum(seconds.values()), records)


def steps_in(seconds: float, records: list[dict[str, Any]]) -> int:
    """Steps that take this time, a multiple of 10, from the second half of a short training's metrics."""
    speeds = [record["speed/images_per_second"] for record in records if "speed/images_per_second" in record]
    latter = speeds[len(speeds) // 2 :]  # the first steps are slower
    steps = seconds * len(latter) / sum(1 / speed for speed in latter) / BATCH_SIZE
    return int(min(max(steps // 10 * 10, MIN_STEPS), MAX_STEPS))


def test_sequences(world: Path) -> list[str]:
    """The test drives in the world's odometry layout: those from 09 on."""
    return sorted(file.stem for file in (world / "odometry/poses").files("*.txt") if file.stem >= "09")


def predict_pictures(checkpoint: Path, kitti: Path, images: list[str], size: tuple[int, int]) -> list[list[np.ndarray]]:
    """Pictures of a few test images: image [H, W, 3], predicted and true inverse depth, relative error, each [h, w].

    Args:
        kitti: the world in the raw layout.
        images: names relative to `kitti`.
        size: (height, width) of the network's input.
    """
    depth_net = load_model(checkpoint).depth_net
    if depth_net is None:
        raise InputError(f"{checkpoint}: expected a depth network")
    rows = []
    for name in images[len(images) // (2 * PICTURED) :: max(1, len(images) // PICTURED)][:PICTURED]:
        resized = read_resized(kitti / name, *size)
        with torch.no_grad():
            disparity = depth_net(normalise(torch.from_numpy(resized[None])))[0][0, 0].numpy()
        true_depth = read_depth_picture(kitti / name.replace("image_02/data", "proj_depth/groundtruth/image_02"))
        known = (true_depth > 0) & (true_depth < 80)
        inverse = np.where(true_depth > 0, 1 / np.maximum(true_depth, 1e-3), 0)
        # Images do not determine the scale of the prediction, so the median depth does.
        scaled = disparity * np.median(inverse[known]) / np.median(disparity[known])
        error = np.where(known, np.abs(inverse / scaled - 1), 0)
        rows.append([resized.transpose(1, 2, 0), scaled, inverse, error])
    return rows


def draw_pictures(rows: list[list[np.ndarray]], file: Path) -> None:
    """Draw the rows of `predict_pictures` as a PNG."""
    height, width = rows[0][0].shape[:2]
    figure = Figure(figsize=(16, 4.1 * len(rows) * height / width + 0.4), layout="constrained")
    axes = figure.subplots(len(rows), 4, squeeze=False)
    for line, (image, predicted, inverse, error) in zip(axes, rows, strict=True):
        near = np.quantile(inverse, 0.97)
        line[0].imshow(image)
        line[1].imshow(predicted, cmap="magma", vmin=0, vmax=near)
        line[2].imshow(inverse, cmap="magma", vmin=0, vmax=near)
        line[3].imshow(error, cmap="viridis", vmin=0, vmax=0.5)
    titles = ("image", "predicted inverse depth", "true inverse depth", "relative error of depth (0 to 0.5)")
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(file, dpi=100)
    print(f"{file}: {len(rows)} test images", flush=True)


def summarise(depth_json: Path, pose_json: Path, seconds: dict[str, float], steps: int, device: str) -> dict[str, Any]:
    """The content of results.json: each error beside those of the baselines."""
    (depth,) = json.loads(depth_json.read_text())["protocols"].values()
    snippets = json.loads(pose_json.read_text())["results"]
    count = sum(r["snippets"] for r in snippets)
    return {
        "depth": {
            "abs_rel": depth["metrics"]["abs_rel"],
            "a1": depth["metrics"]["a1"],
            "abs_rel_mean_map": depth["baselines"]["mean_map"]["abs_rel"],
            "a1_mean_map": depth["baselines"]["mean_map"]["a1"],
            "abs_rel_constant": depth["baselines"]["best_constant"]["abs_rel"],
            "a1_constant": depth["baselines"]["best_constant"]["a1"],
            "protocol": depth["line"],
        },
        "pose": {
            "ate": sum(r["ate"]["mean"] * r["snippets"] for r in snippets) / count,
            "ate_straight_line": sum(r["straight_line_ate"]["mean"] * r["snippets"] for r in snippets) / count,
            "snippets": count,
        },
        "seconds": seconds | {"total": sum(seconds.values())},
        "seconds_meaning": "wall-clock time of each command in the call of demo.py that wrote this file; commands that "
        "found their work done by an earlier call took a few seconds",
        "steps": steps,
        "device": device,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": version("torchvision"),
            "numpy": np.__version__,
        },
    }


def print_results(results: dict[str, Any], folder: Path) -> None:
    depth, pose, seconds = results["depth"], results["pose"], results["seconds"]
    mean_map, constant = "mean depth map", "best constant"
    figures = (
        (
            "depth: Abs Rel (smaller is better)",
            f"{depth['abs_rel']:.3f}",
            f"{depth['abs_rel_mean_map']:.3f} {mean_map}, {depth['abs_rel_constant']:.3f} {constant}",
        ),
        (
            "depth: a1 (larger is better)",
            f"{depth['a1']:.3f}",
            f"{depth['a1_mean_map']:.3f} {mean_map}, {depth['a1_constant']:.3f} {constant}",
        ),
        (
            "motion: 3-frame ATE in metres (smaller is better)",
            f"{pose['ate']:.4f}",
            f"{pose['ate_straight_line']:.4f} straight line",
        ),
    )
    headings = ("on drives that training never saw", "this run", "to beat")
    rows = [dict(zip(headings, line, strict=True)) for line in figures]
    parts = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items() if name != "total")
    print(f"\n{table(rows)}\n")
    print(f"{results['steps']} steps; {seconds['total']:.0f} seconds ({parts})")
    print(f"{folder}/results.json, {folder}/pictures; tensorboard --logdir {folder}/runs")


if __name__ == "__main__":
    run_script(main)
