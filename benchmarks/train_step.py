"""Time the training step: images per second, memory, the share of each part, and the ratio to the roofline."""

import argparse
import functools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable

import torch
from path import Path
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from benchmarks.surroundings import device_name, make_noise
from cli.flags import add_device_flag, add_recipe_flags, choose_device, positive_int, recipe_from_flags, run_script
from datasets.augmentation import augment
from datasets.snippets import ShuffledBatches, SnippetDataset, load_batches, seeded
from files.images import to_network_input
from geometry.pose import pose_to_matrix
from loss_functions import objective, split_snippet
from models import DispNet, PoseExpNet
from training.guard import StepCheck
from training.options import network_width
from training.recipes import Recipe

DESCRIPTION = """\
Time the training step as train.py does it, on noise images that are made for it.

The roofline is the time that the networks' floating-point operations (3 x those of the forward pass) take at the best
rate that this run measures: the faster of a large matrix product and a large 3 x 3 convolution. Rates and steps are
measured in turns, since machines are noisy: trust the ratio.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --device cuda --batch-size 32"""

PARTS = ("loading", "augmentation", "DispNet", "PoseExpNet", "loss", "backward", "optimiser")


def main() -> None:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_device_flag(parser)
    add_recipe_flags(parser)
    parser.add_argument("--batch-size", type=positive_int, default=4, help="(default: 4)")
    parser.add_argument("--height", type=positive_int, default=128, help="(default: 128)")
    parser.add_argument("--width", type=positive_int, default=416, help="(default: 416)")
    parser.add_argument("--network-width", type=network_width, default=1.0, help="as train.py's (default: 1)")
    parser.add_argument("--pose-net-width", type=network_width, help="as train.py's (default: as --network-width)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="of measuring rates, then steps (default: 5)")
    parser.add_argument("--steps", type=positive_int, default=6, help="in a round (default: 6)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that read images (default: 1)")
    parser.add_argument("--precision", choices=("float32", "bf16"), default="float32", help="(default: float32)")
    parser.add_argument("--compile", action="store_true", help="networks and loss compiled, as by train.py --compile")
    parser.add_argument("--channels-last", action="store_true", help="the networks' memory format")
    parser.add_argument("--not-fused", action="store_true", help="Adam as it comes instead of the fused one")
    args = parser.parse_args()
    recipe, device = recipe_from_flags(args), choose_device(args.device)
    torch.set_flush_denormal(True)
    args.pose_net_width = args.pose_net_width or args.network_width
    disp_net, pose_exp_net = (network.to(device) for network in make_networks(args, recipe))
    optimizer = torch.optim.Adam([*disp_net.parameters(), *pose_exp_net.parameters()], 2e-4, fused=not args.not_fused)
    loss_function = objective
    if args.channels_last:
        disp_net.to(memory_format=torch.channels_last)
        pose_exp_net.to(memory_format=torch.channels_last)
    if args.compile:
        loss_function = torch.compile(objective)
        disp_net.compile()
        pose_exp_net.compile()
    check = None if args.not_fused else StepCheck(optimizer, skip=False, late=device.type == "cuda")
    autocast = functools.partial(torch.autocast, device.type, torch.bfloat16, enabled=args.precision == "bf16")
    dtype = torch.bfloat16 if args.precision == "bf16" else torch.float32
    torch.backends.cudnn.benchmark = True

    def wait() -> None:
        if device.type == "cuda":
            torch.cuda.synchronize()
        elif device.type == "mps":
            torch.mps.synchronize()

    def step(number: int, lap: Callable[[str], None]) -> None:
        batch = next(loader)
        frames = to_network_input(batch.frames.to(device, non_blocking=True))
        intrinsics = batch.intrinsics.to(device, non_blocking=True)
        lap("loading")
        frames, intrinsics = augment(frames, intrinsics, seeded(number))
        lap("augmentation")
        target, sources = split_snippet(frames)
        with autocast():
            disparities = disp_net(target)
        lap("DispNet")
        with autocast():
            poses, logits = pose_exp_net(target, sources)
        lap("PoseExpNet")
        result = loss_function(frames, disparities, pose_to_matrix(poses), logits, intrinsics, recipe)
        lap("loss")
        optimizer.zero_grad()
        result.loss.backward()
        lap("backward")
        if check:
            check.before_step(number, result.loss, result.terms, batch.indices, stop=False, save=False)
            check.outcomes(all_of_them=False)
        optimizer.step()
        lap("optimiser")

    with tempfile.TemporaryDirectory() as folder:
        make_noise(Path(folder), args.height, args.width, recipe.sequence_length + 4 * args.batch_size)
        dataset = SnippetDataset(Path(folder), "train.txt", recipe.sequence_length)
        total = 2 * args.rounds * args.steps + 2
        batches = ShuffledBatches(len(dataset), args.batch_size, 0, 0, total)
        loader = load_batches(dataset, batches, args.workers, device.type == "cuda")
        rates: dict[str, list[float]] = {"matrix product": [], "3 x 3 convolution": []}
        laps: dict[str, list[float]] = {part: [] for part in PARTS}
        seconds: list[float] = []
        cpu_seconds: list[float] = []
        number = 0
        for _ in range(2):  # warm-up
            step(number, lambda part: None)
            number += 1
        for _ in tqdm(range(args.rounds), desc=f"measuring on {device}"):
            for name, rate in measure_rates(device, dtype, wait).items():
                rates[name].append(rate)
            wait()
            start, cpu_start = time.perf_counter(), time.process_time()
            for _ in range(args.steps):  # as train.py runs: nothing waits for the device
                step(number, lambda part: None)
                number += 1
            wait()
            seconds.append((time.perf_counter() - start) / args.steps)
            cpu_seconds.append((time.process_time() - cpu_start) / args.steps)
            for _ in range(args.steps):  # part by part
                wait()
                last = time.perf_counter()

                def lap(part: str) -> None:
                    nonlocal last
                    wait()
                    now = time.perf_counter()
                    laps[part].append(now - last)
                    last = now

                step(number, lap)
                number += 1

    operations = 3 * forward_operations(args, recipe)
    best_rate = max(max(values) for values in rates.values())
    roofline = operations / best_rate
    median, best = statistics.median(seconds), min(seconds)
    print(
        f"{device_name(device)}, torch {torch.__version__}; {args.width} x {args.height}, batch {args.batch_size}, "
        f"{recipe.sequence_length} frames, masks {'on' if recipe.explainability else 'off'}, {args.precision}, "
        f"width {args.network_width:g} and {args.pose_net_width:g}"
        f"{', compiled' if args.compile else ''}{', channels last' if args.channels_last else ''}"
        f"{', Adam not fused' if args.not_fused else ''}"
    )
    print(f"step              {1000 * median:8.1f} ms (best round {1000 * best:.1f} ms)")
    print(f"CPU time          {1000 * statistics.median(cpu_seconds):8.1f} ms of this process")
    print(f"images per second {args.batch_size / median:8.1f}")
    print(f"peak memory       {peak_memory(device) / 2**30:8.2f} GiB")
    for name, values in rates.items():
        print(f"{name:18s}{max(values) / 1e9:8.1f} GFLOP/s")
    print(f"roofline          {1000 * roofline:8.1f} ms ({operations / 1e9:.1f} GFLOP)")
    print(f"step / roofline   {median / roofline:8.2f} (best round {best / roofline:.2f})")
    shares = {part: statistics.median(values) for part, values in laps.items()}
    for part, value in shares.items():
        print(f"  {part:16s}{100 * value / sum(shares.values()):6.1f} %")


def measure_rates(device: torch.device, dtype: torch.dtype, wait: Callable[[], None]) -> dict[str, float]:
    """Floating-point operations per second of a large matrix product and of a large 3 x 3 convolution."""
    size = 2048 if device.type == "cpu" else 8192
    batch = 4 if device.type == "cpu" else 64
    rand = functools.partial(torch.rand, dtype=dtype, device=device)
    a, b = rand(size, size), rand(size, size)
    image, kernel = rand(batch, 256, 32, 104), rand(256, 256, 3, 3)
    tasks = {
        "matrix product": (lambda: a @ b, 2 * size**3),
        "3 x 3 convolution": (
            lambda: functional.conv2d(image, kernel, padding=1),
            2 * kernel.numel() * image[:, 0].numel(),
        ),
    }
    rates = {}
    for name, (task, operations) in tasks.items():
        times = []
        for _ in range(4):
            wait()
            start = time.perf_counter()
            task()
            wait()
            times.append(time.perf_counter() - start)
        rates[name] = operations / min(times)
    return rates


def make_networks(args: argparse.Namespace, recipe: Recipe) -> tuple[DispNet, PoseExpNet]:
    pose_exp_net = PoseExpNet(recipe.sequence_length - 1, recipe.explainability, width=args.pose_net_width)
    return DispNet(width=args.network_width), pose_exp_net


@torch.no_grad()
def forward_operations(args: argparse.Namespace, recipe: Recipe) -> int:
    disp_net, pose_exp_net = make_networks(args, recipe)
    target = torch.zeros(args.batch_size, 3, args.height, args.width)
    sources = torch.zeros(args.batch_size, recipe.sequence_length - 1, 3, args.height, args.width)
    with FlopCounterMode(display=False) as counter:
        disp_net(target)
        pose_exp_net(target, sources)
    return counter.get_total_flops()


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process (with PyTorch itself) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    run_script(main)
