"""What the benchmarks run on: the name of the device, and images made for them."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from path import Path

from datasets.layout import write_intrinsics, write_scene_names
from files.images import write_jpeg


def make_noise(folder: Path, height: int, width: int, count: int) -> None:
    """A prepared data set of one scene of noise that is smooth enough to be an image."""
    random = np.random.default_rng(0)
    (folder / "noise").makedirs_p()
    for number in range(count):
        coarse = random.integers(0, 256, (-(-height // 8), -(-width // 8), 3), dtype=np.uint8)
        image = coarse.repeat(8, 0).repeat(8, 1)[:height, :width]
        write_jpeg(folder / f"noise/{number:07d}.jpg", np.ascontiguousarray(image))
    focal = 0.58 * width  # KITTI's
    write_intrinsics(
        folder / "noise/cam.txt", np.array([[focal, 0, (width - 1) / 2], [0, focal, (height - 1) / 2], [0, 0, 1]])
    )
    write_scene_names(folder / "train.txt", ["noise"])


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    names = {line.partition(":")[2].strip() for line in cpu_info() if line.startswith("model name")}
    return f"{device}: {', '.join(sorted(names)) or 'unknown processor'}, {torch.get_num_threads()} threads"


def cpu_info() -> list[str]:
    file = Path("/proc/cpuinfo")
    return file.read_text().splitlines() if file.exists() else []


@contextmanager
def signals_as_before() -> Iterator[None]:
    """Undo what a run changes: it listens to Ctrl-C and SIGTERM also after its end, where nobody asks it any more."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    streams = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout, sys.stderr = streams
        for number, handler in handlers.items():
            signal.signal(number, handler)
