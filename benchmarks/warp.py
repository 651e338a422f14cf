"""Time the inverse warp, forward and backward, beside the same warp written the usual way."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from path import Path
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, add_device_flag, choose_device, positive_int, run_script

from benchmarks.port import add_port_flag, load_port, port_warp
from benchmarks.surroundings import device_name
from files.memory import keep_freed_memory
from geometry.pose import pose_to_matrix
from inverse_warp import inverse_warp

DESCRIPTION = """\
Time the inverse warp, forward and backward to depth and pose, beside the usual formulation: a point cloud of the
target, its projection, coordinates in -1 .. 1, and autograd's own backward pass.

All are measured in turns, since machines are noisy: trust the ratio of the least times. With --port, the warp of the
well-known PyTorch port is measured, too.

  python benchmarks/warp.py
  python benchmarks/warp.py --port ../SfmLearner-Pytorch
  python benchmarks/warp.py --device cuda --batch-size 32"""

Warp = Callable[[Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("batch-size", 4), ("height", 128), ("width", 416), ("rounds", 60)):
        parser.add_argument(f"--{name}", type=positive_int, default=default, help=f"(default: {default})")
    add_port_flag(parser)
    add_device_flag(parser)
    args = parser.parse_args()
    torch.set_flush_denormal(True)  # as train.py does
    keep_freed_memory()
    device = choose_device(args.device)
    print(f"{device_name(device)}, torch {torch.__version__}; {args.batch_size} x 3 x {args.height} x {args.width}")
    warps: dict[str, Warp] = {"usual": usual_warp, "ours": our_warp}
    if args.port is not None:
        warps["port"] = port_warp(load_port(args.port))
    seconds = measure(warps, args.batch_size, args.height, args.width, args.rounds, device)
    for name, times in seconds.items():
        print(f"{name:6s}{1000 * min(times):8.2f} ms at best, {1000 * statistics.median(times):8.2f} in the median")
    for name in warps.keys() - {"ours"}:
        ratios = [a / b for a, b in zip(seconds["ours"], seconds[name], strict=True)]
        least = min(seconds["ours"]) / min(seconds[name])
        print(f"ours / {name:6s}{least:8.2f} of the least times, {statistics.median(ratios):.2f} median of the rounds")


def measure(
    warps: dict[str, Warp], batch: int, height: int, width: int, rounds: int, device: torch.device
) -> dict[str, list[float]]:
    """Seconds of each round, of all warps in turns; the processor's on a CPU."""
    torch.manual_seed(0)
    images, cotangent = torch.rand(2, batch, 3, height, width, device=device)
    depth = (20 * torch.rand(batch, 1, height, width, device=device) + 3).requires_grad_()
    pose = (0.02 * torch.randn(batch, 6, device=device)).requires_grad_()
    focal = 0.58 * width  # KITTI's
    intrinsics = torch.tensor([[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]], device=device)
    intrinsics = intrinsics.repeat(batch, 1, 1)
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in warps}
    for _ in range(rounds):
        for name, warp in warps.items():
            _wait(device)
            start = clock()
            warped, _ = warp(images, depth, pose, intrinsics)
            torch.autograd.grad((warped * cotangent).sum(), [depth, pose])
            _wait(device)
            seconds[name].append(clock() - start)
    return {name: times[rounds // 10 :] for name, times in seconds.items()}


def our_warp(images: Tensor, depth: Tensor, poses: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    source_from_target = pose_to_matrix(poses)
    warped, valid = inverse_warp(images[:, None], depth, source_from_target[:, None], intrinsics)
    return warped.flatten(0, 1), valid.flatten(0, 1)


def usual_warp(images: Tensor, depth: Tensor, poses: Tensor, intrinsics: Tensor) -> tuple[Tensor, Tensor]:
    """X = d K^-1 p, x = K (R X + t) divided by its z, x and y scaled to -1 .. 1, sampled; valid where both lie inside.

    As it is usually written: z from 0.001 on, and the mask by the largest of |x| and |y|.
    """
    source_from_target = pose_to_matrix(poses)
    batch, _, height, width = images.shape
    y, x = torch.meshgrid(
        torch.arange(height, dtype=depth.dtype, device=depth.device),
        torch.arange(width, dtype=depth.dtype, device=depth.device),
        indexing="ij",
    )
    pixels = torch.stack([x, y, torch.ones_like(x)]).flatten(1).expand(batch, 3, -1)
    points = (torch.linalg.inv_ex(intrinsics).inverse @ pixels) * depth.flatten(2)
    projection = intrinsics @ source_from_target[:, :3]
    projected = projection[:, :, :3] @ points + projection[:, :, 3:]
    x, y, z = projected[:, 0], projected[:, 1], projected[:, 2].clamp(min=1e-3)
    grid = torch.stack([2 * (x / z) / (width - 1) - 1, 2 * (y / z) / (height - 1) - 1], 2)
    grid = grid.view(batch, height, width, 2)
    return functional.grid_sample(images, grid, padding_mode="zeros", align_corners=True), grid.abs().amax(-1) <= 1


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    run_script(main)
