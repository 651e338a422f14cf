"""The whole job on a world of its own: render, prepare, train, test on drives that training never saw."""

import argparse
import json
import platform
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torchvision
from matplotlib import pyplot
from path import Path

from cli.flags import add_device_flag, choose_device, non_negative_int, positive_int, run_script
from cli.tables import table, write_json
from datasets.layout import write_text
from files.errors import InputError
from files.images import read_depth_picture, to_network_input
from files.text import read_names
from inference.depth import read_resized
from models.checkpoint import load_checkpoint, load_model

ROOT = Path(__file__).absolute().parent
STAGES = ("world", "prepare", "speed", "train", "test_depth", "test_pose", "pictures")
BATCH_SIZE = 8
# What was found best for a short training, and why: docs/experiments.md.
TRAINING = (
    *("--smoothed", "depth", "--smoothness-weight", 0.02, "--batch-size", BATCH_SIZE, "--augmentation", "flip"),
    *("--learning-rate", 1.1e-3, "--schedule", "cosine", "--network-width", 0.5),
    *("--first-disparity", 1.2, "--translation-scale", 0.1, "--rotation-scale", 0.2, "--fixation-depth", 0.83),
)
# The length of a training that nobody chose: what is left of ten minutes, less what the tests take and some reserve.
WHOLE_SECONDS, TESTS_SECONDS, LEAST_STEPS, MOST_STEPS = 570, 20, 500, 3000
PLAIN, FAST = "--precision float32", "--precision bf16 --channels-last"
PICTURED = 5  # test images in the picture of depths
DESCRIPTION = """\
Render a small world of streets, prepare it, train on it, test on drives that training never saw, and print how far
depth and motion come, each beside what it must beat. Nothing is downloaded.

  make demo                     makes the environment, too
  python demo.py --steps 4000   longer, better

Everything goes to one folder: demo/results.json, demo/pictures, and what the scripts leave: the world, the prepared
data, and the run, which `tensorboard --logdir demo/runs` shows. Stopped by Ctrl-C, the same command goes on."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--folder", type=Path, default=Path("demo"), help="where everything goes (default: demo)")
    add(
        "--steps",
        type=positive_int,
        help="of the training; more is better (default: so many that the whole job takes this machine about "
        f"{WHOLE_SECONDS // 60} minutes, {MOST_STEPS} at most)",
    )
    add("--drives", type=positive_int, default=40, help="of the world; the last fifth is for testing (default: 40)")
    add("--frames", type=positive_int, default=36, help="of each drive (default: 36)")
    add("--width", type=positive_int, default=208, help="of the images (default: 208)")
    add("--height", type=positive_int, default=64, help="of the images (default: 64)")
    add("--seed", type=non_negative_int, default=0, help="of the world and the training (default: 0)")
    add_device_flag(parser)
    args = parser.parse_args()
    if args.drives < 3:
        parser.error(f"--drives {args.drives}: expected 3 or more: for training, for validation and for testing")
    if args.frames < BATCH_SIZE + 2:
        parser.error(f"--frames {args.frames}: expected {BATCH_SIZE + 2} or more, which make a batch of snippets of 3")
    return args


def main() -> None:
    args = parse_arguments()
    device = choose_device(args.device)
    world, prepared, runs = args.folder / "world", args.folder / "prepared", args.folder / "runs"
    depth_json, pose_json, pictures = args.folder / "depth.json", args.folder / "pose.json", args.folder / "pictures"
    depth_picture = pictures / "depth.png"
    pictures.makedirs_p()
    record = args.folder / "stages.json"
    size = ("--width", args.width, "--height", args.height)
    seed, on_device = ("--seed", args.seed), ("--device", device)

    stage(
        *(record, "world", f"{args.drives} drives of {args.frames} frames, with true depth and motion"),
        ["data/make_world.py", world, "--drives", args.drives, "--frames", args.frames, *size, *seed]
        + ["--mono", "--dense-depth"],
    )
    stage(
        *(record, "prepare", "the layout that train.py reads, without the test drives"),
        ["data/prepare_kitti.py", world / "raw", prepared, *size, "--cameras", "02", "--static", "speed"]
        + ["--with-depth", "--with-poses", "--test-scenes", world / "splits/test_scenes.txt"],
    )
    precision = precision_flags(args.folder / f"precision_{device.type}.txt", device)
    train: list[Any] = ["train.py", prepared, *seed, *TRAINING, *precision, *on_device]
    steps = args.steps
    if steps is None:
        speed = args.folder / "speed"
        stage(
            *(record, "speed", "how many steps this machine does in the time there is"),
            [*train, "--runs", args.folder, "--name", speed.name, "--steps", 40, "--log-every", 10, "--no-check"],
            output=speed,
        )
        spent = sum(read_record(record)[name]["seconds"] for name in ("world", "prepare", "speed"))
        steps = affordable_steps(speed / "metrics.jsonl", WHOLE_SECONDS - TESTS_SECONDS - spent)
        print(f"{steps} steps are what this machine has time for; --steps {steps} repeats this run")
    run = runs / f"steps_{steps}"
    stage(
        *(record, "train", f"depth and motion from images alone, {steps} steps on {device}"),
        [*train, "--runs", runs, "--name", run.name, "--steps", steps],
        output=run,
        resume=["train.py", "--resume", run, *on_device] if (run / "last.pt").is_file() else None,
        finished=lambda: load_checkpoint(run / "last.pt")["step"] == steps,
    )
    images = world / "splits/test_files.txt"
    stage(
        *(record, "test_depth", "depth, on drives that training never saw"),
        ["test_depth.py", run / "last.pt", "--kitti", world / "raw", "--list", images, "--protocol", "dense"]
        + ["--crop", "garg", "--training-data", prepared, "--json", depth_json, *on_device],
    )
    sequences = test_sequences(world)
    stage(
        *(record, "test_pose", "motion, on drives that training never saw"),
        ["test_pose.py", run / "last.pt", "--kitti", world / "odometry", "--sequences", *sequences]
        + ["--json", pose_json, "--export", pictures / "trajectories", *on_device],
    )
    stage(
        *(record, "pictures", "depth and explainability on test images"),
        lambda: draw_depths(
            run / "last.pt", world / "raw", read_names(images), (args.height, args.width), depth_picture
        ),
    )
    results = summarise(depth_json, pose_json, record, steps, str(device))
    results["training"] = shlex.join(map(str, [*train, "--steps", steps]))
    write_json(args.folder / "results.json", results)
    print_results(results, args.folder)


def stage(
    record: Path,
    name: str,
    aim: str,
    work: list[Any] | Callable[[], None],
    output: Path | None = None,
    resume: list[Any] | None = None,
    finished: Callable[[], bool] = lambda: True,
) -> None:
    """Do one stage of the job, unless an earlier run finished the very same, and note in `record` how long it took.

    Args:
        record: JSON file of what was done before.
        name, aim: for the headline.
        work: a script with its flags, or a function.
        output: a folder that must not be there when a script begins, and is removed.
        resume: the command that goes on with what was stopped, where that is another one.
        finished: whether it is done, after a script that ended in order (a training that was stopped does).
    """
    command = "" if callable(work) else shlex.join(map(str, work))
    done = read_record(record)
    headline = f"\n[{1 + STAGES.index(name)}/{len(STAGES)}] {name}: {aim}"
    before = done.get(name, {})
    if before.get("command") != command:
        before, resume = {"command": command, "seconds": 0.0, "finished": False}, None
    if before["finished"] and not callable(work):
        print(f"{headline}: done before, in {before['seconds']:.0f} s", flush=True)
        return
    print(headline, flush=True)
    if output and not resume:
        output.rmtree_p()
    start = time.perf_counter()
    try:
        if callable(work):
            work()
        else:
            run(resume or work)
        before["finished"] = finished()
    finally:
        before["seconds"] += time.perf_counter() - start
        # A stage that ran makes the later ones stale.
        kept = {other: done[other] for other in STAGES[: STAGES.index(name)] if other in done}
        write_text(record, json.dumps(kept | {name: before}, indent=2) + "\n")
    if not before["finished"]:
        raise InputError(f"{name} was stopped; the same command goes on from there")


def read_record(record: Path) -> dict[str, dict[str, Any]]:
    """What was done before, by stage; nothing where the file is missing or damaged."""
    try:
        return dict(json.loads(record.read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def run(command: list[Any]) -> None:
    """Run a script of the project as a user would, and show the command; Ctrl-C lets the script end in order."""
    words = [str(word) for word in command]
    print(f"$ python {shlex.join(words)}", flush=True)
    asked: list[int] = []
    script = subprocess.Popen([sys.executable, ROOT / words[0], *words[1:]])

    def ask(number: int, frame: Any) -> None:
        asked.append(number)
        if number == signal.SIGTERM:  # the terminal sends Ctrl-C to the script itself
            script.terminate()

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = script.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise KeyboardInterrupt
    if status:
        raise InputError(f"{words[0]} failed with exit status {status}, see above; the same command goes on from there")


def precision_flags(file: Path, device: torch.device) -> list[str]:
    """bfloat16 where it makes a CPU's convolutions far faster (AMX); measured once, and kept in `file`."""
    kept = file.read_text(errors="replace").strip() if file.is_file() else ""
    if kept not in (PLAIN, FAST):
        kept = FAST if device.type == "cpu" and bf16_speedup() > 1.5 else PLAIN
        if kept == FAST:
            print("this processor is far faster in bfloat16: the training's convolutions will use it", flush=True)
        write_text(file, f"{kept}\n")
    return shlex.split(kept)


def bf16_speedup() -> float:
    """How many times as fast as in float32 some convolutions and their gradients are on this CPU in bfloat16.

    It was 2.5 to 3 with AMX, 0.7 with AVX-512's own bfloat16 instructions, 0.1 to 0.3 with none.
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


def affordable_steps(metrics: Path, seconds: float) -> int:
    """How many steps take this time, in tens, by the speed in the second half of a short training's log."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    speeds = [line["speed/images_per_second"] for line in lines if "speed/images_per_second" in line]
    latter = speeds[len(speeds) // 2 :]  # the first steps are slower
    steps = seconds * len(latter) / sum(1 / speed for speed in latter) / BATCH_SIZE
    return int(min(max(steps // 10 * 10, LEAST_STEPS), MOST_STEPS))


def test_sequences(world: Path) -> list[str]:
    """The test drives in the world's odometry layout, which are those from 09 on."""
    return sorted(file.stem for file in (world / "odometry/poses").files("*.txt") if file.stem >= "09")


def draw_depths(checkpoint: Path, kitti: Path, images: list[str], size: tuple[int, int], picture: Path) -> None:
    """Some test images, a row each: the image, predicted and true inverse depth, explainability.

    `size` is the networks' (height, width).
    """
    networks = load_model(checkpoint)
    depth_net, pose_net = networks.depth_net, networks.pose_net
    if depth_net is None or pose_net is None:
        raise InputError(f"{checkpoint}: expected both networks")
    rows = []
    for name in images[len(images) // (2 * PICTURED) :: max(1, len(images) // PICTURED)][:PICTURED]:
        files = [with_number(kitti / name, shift) for shift in (0, -1, 1)]
        if not all(file.is_file() for file in files):
            continue
        resized = [read_resized(file, *size) for file in files]
        frames = to_network_input(torch.from_numpy(np.stack(resized)))
        with torch.no_grad():
            disparity = depth_net(frames[:1])[0][0, 0].numpy()
            _, masks = pose_net(frames[:1], frames[None, 1:])
        true_depth = read_depth_picture(kitti / name.replace("image_02/data", "proj_depth/groundtruth/image_02"))
        known = (true_depth > 0) & (true_depth < 80)
        inverse = np.where(true_depth > 0, 1 / np.maximum(true_depth, 1e-3), 0)
        # The prediction's scale, which images don't tell, is that of the median depth.
        scaled = disparity * np.median(inverse[known]) / np.median(disparity[known])
        rows.append((resized[0].transpose(1, 2, 0), scaled, inverse, masks[0][0].sigmoid().mean(0).numpy()))

    titles = ("image", "predicted inverse depth", "true inverse depth", "explainability (0 to 1)")
    height, width = size
    figure, axes = pyplot.subplots(
        len(rows), 4, figsize=(16, 4.1 * len(rows) * height / width + 0.4), squeeze=False, layout="constrained"
    )
    for line, (image, predicted, inverse, mask) in zip(axes, rows, strict=True):
        near = np.quantile(inverse, 0.97)
        line[0].imshow(image)
        line[1].imshow(predicted, cmap="magma", vmin=0, vmax=near)
        line[2].imshow(inverse, cmap="magma", vmin=0, vmax=near)
        line[3].imshow(mask, cmap="viridis", vmin=0, vmax=1)
    for axis, title in zip(axes[0], titles, strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    figure.savefig(picture, dpi=100)
    pyplot.close(figure)
    print(f"{picture}: {len(rows)} test images", flush=True)


def with_number(file: Path, shift: int) -> Path:
    """The image so many frames later: its name is a number."""
    return file.parent / f"{int(file.stem) + shift:0{len(file.stem)}d}{file.suffix}"


def summarise(depth_json: Path, pose_json: Path, record: Path, steps: int, device: str) -> dict[str, Any]:
    """What demo/results.json holds: each figure beside what it must beat."""
    (depth,) = json.loads(depth_json.read_text())["protocols"].values()
    snippets = json.loads(pose_json.read_text())["results"]
    count = sum(r["snippets"] for r in snippets)
    seconds = {name: stage["seconds"] for name, stage in read_record(record).items()}
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
        "steps": steps,
        "device": device,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "numpy": np.__version__,
        },
    }


def print_results(results: dict[str, Any], folder: Path) -> None:
    depth, pose, seconds = results["depth"], results["pose"], results["seconds"]
    rows = [
        {
            "on drives that training never saw": "depth: Abs Rel (smaller is better)",
            "this run": f"{depth['abs_rel']:.3f}",
            "to beat": f"{depth['abs_rel_mean_map']:.3f} mean depth map, {depth['abs_rel_constant']:.3f} best constant",
        },
        {
            "on drives that training never saw": "depth: a1 (larger is better)",
            "this run": f"{depth['a1']:.3f}",
            "to beat": f"{depth['a1_mean_map']:.3f} mean depth map, {depth['a1_constant']:.3f} best constant",
        },
        {
            "on drives that training never saw": "motion: 3-frame ATE in metres (smaller is better)",
            "this run": f"{pose['ate']:.4f}",
            "to beat": f"{pose['ate_straight_line']:.4f} straight line",
        },
    ]
    stages = ", ".join(f"{name} {value:.0f}" for name, value in seconds.items() if name != "total")
    print(f"\n{table(rows)}\n")
    print(f"{results['steps']} steps; {seconds['total']:.0f} seconds ({stages})")
    print(f"{folder}/results.json, {folder}/pictures; tensorboard --logdir {folder}/runs")


if __name__ == "__main__":
    run_script(main)
