"""Time the training step: images per second, memory, the share of each part, and the ratio to the roofline."""

import argparse
import functools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from path import Path
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, add_hidden_flags, add_option_flags, choose_device, positive_int, run_script

from benchmarks.port import add_port_flag, load_port, port_step
from benchmarks.surroundings import device_name, make_noise
from datasets.loading import Batch
from geometry.snippets import Snippets
from models import Prediction, build
from train import train_step
from training.options import OLD_FLAGS, TrainOptions, new_options
from training.run import Run, open_run
from training.start import uses_channels_last
from training.steps import after_step, before_step, take_step

DESCRIPTION = """\
Time the training step of train.py, on noise images that are made for it.

The roofline is the time that the networks' floating-point operations (3 x those of the forward pass) take at the best
rate that this run measures: the faster of a large matrix product and a large 3 x 3 convolution. Rates and steps are
measured in turns, since machines are noisy: trust the ratio.

With --port, float32 steps of the well-known PyTorch port are measured, too, in turns with these: networks, loss,
backward and update of noise images of the same size. Augmentation and loading count for this project alone.

  python benchmarks/train_step.py
  python benchmarks/train_step.py --port ../SfmLearner-Pytorch
  python benchmarks/train_step.py --device cuda --batch-size 32"""

# The fields of TrainOptions that are flags here.
FLAGS = (
    *("recipe", "sequence_length", "objective", "depth_net", "pose_net", "camera", "batch_size", "accumulate"),
    *("augmentation", "device", "precision", "compile", "channels_last", "graph", "data_in_memory", "workers"),
)
PARTS = (
    *("loading", "augmentation", "depth network", "pose network", "camera", "compiled model"),
    *("loss", "backward", "optimiser", "after the step"),
)
WARM_UP = 5  # steps
NEVER = 10**9  # steps or minutes


@dataclass
class Measurement:
    """What the rounds measured."""

    rates: dict[str, list[float]] = field(default_factory=dict)  # floating-point operations per second, of each round
    seconds: list[float] = field(default_factory=list)  # a step, mean of each round
    cpu_seconds: list[float] = field(default_factory=list)  # likewise, of this process's processor time
    parts: dict[str, list[float]] = field(default_factory=dict)  # seconds of each part, of each step
    port_seconds: list[float] = field(default_factory=list)  # a step of the port, mean of each round
    port_cpu_seconds: list[float] = field(default_factory=list)  # likewise, of this process's processor time


def main() -> None:
    torch.set_flush_denormal(True)  # as train.py does
    given = parse_arguments()
    height, width, rounds, steps, port = (given.pop(name) for name in ("height", "width", "rounds", "steps", "port"))
    options = new_options(given)
    device = choose_device(options.device)
    port_steps = None
    if port is not None:
        port_steps = port_step(
            load_port(port), options.batch_size * options.accumulate, options.sequence_length, height, width, device
        )
    total = WARM_UP + 2 * rounds * steps
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # One more step than is made, and one epoch: nothing is validated, reported or saved between the timed steps.
        images = options.sequence_length + (total + 1) * options.batch_size * options.accumulate
        make_noise(folder / "data", height, width, images)
        options = replace(options, data=folder / "data", runs=folder, name="run", check=False, steps=total + 1)
        options = replace(options, log_every=NEVER, pictures_every=NEVER, save_every=NEVER)
        with open_run(options, None, device) as run:
            run.progress.leave = False
            run.progress.close()  # there is a bar of rounds instead
            measurement = measure(run, rounds, steps, port_steps)
    report(run, measurement)


def parse_arguments() -> dict[str, Any]:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=positive_int, default=128, help="pixels of the images (default: 128)")
    parser.add_argument("--width", type=positive_int, default=416, help="pixels of the images (default: 416)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="of measuring rates, then steps (default: 5)")
    parser.add_argument("--steps", type=positive_int, default=6, help="steps in a round (default: 6)")
    add_port_flag(parser)
    add_option_flags(parser, TrainOptions, names=FLAGS)
    add_hidden_flags(parser, OLD_FLAGS)
    return vars(parser.parse_args())


def measure(run: Run, rounds: int, steps: int, port: Callable[[], None] | None = None) -> Measurement:
    """Time the rates, the steps, the port's, and the parts of as many more steps, in turns.

    Args:
        port: takes a step of the port.
    """
    result = Measurement()
    dtype = torch.bfloat16 if run.options.precision == "bf16" else torch.float32
    train_steps(run, WARM_UP)  # a step's graph is captured here, too
    if port is not None:
        time_steps(port, WARM_UP, run.device)
    for _ in tqdm(range(rounds), desc=f"measuring on {run.device}"):
        for name, rate in measure_rates(run.device, dtype).items():
            result.rates.setdefault(name, []).append(rate)
        # Nothing but the training itself waits for the device.
        seconds, cpu_seconds = time_steps(lambda: train_steps(run, 1), steps, run.device)
        result.seconds.append(seconds)
        result.cpu_seconds.append(cpu_seconds)
        if port is not None:
            seconds, cpu_seconds = time_steps(port, steps, run.device)
            result.port_seconds.append(seconds)
            result.port_cpu_seconds.append(cpu_seconds)
        with timed_parts(run) as (parts, lap):
            for _ in range(steps):
                train_steps(run, 1)
                lap("after the step")
                for part, value in parts.items():
                    result.parts.setdefault(part, []).append(value)
                parts.clear()
    return result


def time_steps(step: Callable[[], None], count: int, device: torch.device) -> tuple[float, float]:
    """Seconds, and seconds of this process's processor time, of a step: means of `count` steps."""
    synchronise(device)
    start, cpu_start = time.perf_counter(), time.process_time()
    for _ in range(count):
        step()
    synchronise(device)
    return (time.perf_counter() - start) / count, (time.process_time() - cpu_start) / count


def train_steps(run: Run, count: int) -> None:
    """The loop of `train.train`, for some steps."""
    for _ in range(count):
        if not before_step(run):
            raise KeyboardInterrupt  # Ctrl-C requested the end of the training
        take_step(run, train_step)
        after_step(run)


@contextmanager
def timed_parts(run: Run) -> Iterator[tuple[dict[str, float], Callable[[str], None]]]:
    """Time the parts of the training steps meanwhile: by wrapping what a step calls, and waiting for the device.

    Yields:
        The seconds by part, which add up until they are cleared, and a function that adds the time since the last
        event to a part.
    """
    seconds: dict[str, float] = {}
    loader, model, objective, compiled = run.loader, run.model, run.objective, run.options.compile
    graph, run.graph = run.graph, None  # it is one part

    def load() -> Iterator[Batch]:
        while True:
            lap("backward")  # of the batch before, where gradients are accumulated
            batch = next(loader)
            lap("loading")
            yield batch

    def predict(snippets: Snippets) -> Prediction:
        lap("augmentation")
        prediction = model(snippets)
        lap("compiled model" if compiled else "camera")
        return prediction

    def lose(*arguments: Any) -> Any:
        loss = objective(*arguments)
        lap("loss")
        return loss

    run.loader, run.model, run.objective = load(), predict, lose  # type: ignore[assignment]
    hooks = [
        run.optimizer.register_step_pre_hook(lambda *_: lap("backward")),
        run.optimizer.register_step_post_hook(lambda *_: lap("optimiser")),
    ]
    if not compiled:  # a hook would break the compiled model apart
        hooks.append(run.weights.depth_net.register_forward_hook(lambda *_: lap("depth network")))
        hooks.append(run.weights.pose_net.register_forward_hook(lambda *_: lap("pose network")))
    synchronise(run.device)
    last = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal last
        synchronise(run.device)
        now = time.perf_counter()
        seconds[part] = seconds.get(part, 0.0) + now - last
        last = now

    try:
        yield seconds, lap
    finally:
        run.loader, run.model, run.objective, run.graph = loader, model, objective, graph
        for hook in hooks:
            hook.remove()


def report(run: Run, measured: Measurement) -> None:
    options, record = run.options, run.record
    operations = 3 * forward_operations(options, record["height"], record["width"])
    roofline = operations / max(max(values) for values in measured.rates.values())
    median, best = statistics.median(measured.seconds), min(measured.seconds)
    print(
        f"{device_name(run.device)}, torch {torch.__version__}; {record['width']} x {record['height']}, "
        f"batch {options.batch_size}{f' x {options.accumulate}' if options.accumulate > 1 else ''}, "
        f"{options.sequence_length} frames, masks {'on' if options.objective.explainability else 'off'}, "
        f"{options.precision}, {options.depth_net} and {options.pose_net}"
        f"{', compiled' if options.compile else ''}"
        f"{', channels last' if uses_channels_last(options, run.device) else ''}"
    )
    print(f"step              {1000 * median:8.1f} ms (best round {1000 * best:.1f} ms)")
    print(f"CPU time          {1000 * statistics.median(measured.cpu_seconds):8.1f} ms of this process")
    print(f"images per second {run.options.batch_size * run.options.accumulate / median:8.2f}")
    print(f"peak memory       {peak_memory(run.device) / 2**30:8.2f} GiB")
    for name, values in measured.rates.items():
        print(f"{name:18s}{max(values) / 1e9:8.1f} GFLOP/s")
    print(f"roofline          {1000 * roofline:8.1f} ms ({operations / 1e9:.1f} GFLOP)")
    print(f"step / roofline   {median / roofline:8.2f} (best round {best / roofline:.2f})")
    if measured.port_seconds:
        report_port(measured)
    shares = {part: statistics.median(measured.parts[part]) for part in PARTS if part in measured.parts}
    for part, value in shares.items():
        print(f"  {part:16s}{100 * value / sum(shares.values()):6.1f} %")


def report_port(measured: Measurement) -> None:
    """Print the port's step, and how many of its steps' images one gets in the same time: more than 1 is faster."""
    for name, ours, port in (
        ("the port's step", measured.seconds, measured.port_seconds),
        ("its CPU time", measured.cpu_seconds, measured.port_cpu_seconds),
    ):
        ratio = statistics.median(b / a for a, b in zip(ours, port, strict=True))
        print(f"{name:18s}{1000 * statistics.median(port):8.1f} ms (best round {1000 * min(port):.1f} ms); ", end="")
        print(f"ours is {ratio:.2f} times as fast (best rounds: {min(port) / min(ours):.2f})")


def measure_rates(device: torch.device, dtype: torch.dtype) -> dict[str, float]:
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
            synchronise(device)
            start = time.perf_counter()
            task()
            synchronise(device)
            times.append(time.perf_counter() - start)
        rates[name] = operations / min(times)
    return rates


@torch.no_grad()
def forward_operations(options: TrainOptions, height: int, width: int) -> int:
    """Floating-point operations of the model's forward pass in one training step."""
    specs = options.networks()
    model = build(specs["depth"], specs["pose"], specs["camera"])
    images = torch.zeros(options.batch_size, options.sequence_length, 3, height, width)
    snippets = Snippets(images[:, 0], images[:, 1:], torch.eye(3).expand(options.batch_size, 3, 3))
    with FlopCounterMode(display=False) as counter:
        model(snippets)
    return options.accumulate * counter.get_total_flops()


def synchronise(device: torch.device) -> None:
    """Wait until the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    elif device.type == "mps":
        torch.mps.synchronize()


def peak_memory(device: torch.device) -> int:
    """Bytes: of tensors on a GPU, of the whole process (with PyTorch itself) on a CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


if __name__ == "__main__":
    run_script(main)
