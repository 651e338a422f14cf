"""Time each network on its own: forward, backward and update of noise images, and the ratio to the paper's network."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from path import Path
from torch import nn
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, add_device_flag, choose_device, positive_int, run_script
from cli.tables import table

from benchmarks.surroundings import device_name
from models import DEPTH_NETS, POSE_NETS, NetworkSpec, make

DESCRIPTION = """\
Time the networks of models/, each on its own, on noise images: forward, backward and Adam's update.

Each round times every network once, since machines are noisy: trust the ratio, which is the median over the rounds of
the ratio to the paper's network in the same round. The pose networks see snippets of 3 frames and predict no masks.

  python benchmarks/networks.py
  python benchmarks/networks.py --height 192 --width 640 --batch-size 12 --device cuda"""

DEPTH = (
    NetworkSpec("disp_net"),
    NetworkSpec("resnet18"),
    NetworkSpec("resnet50"),
    NetworkSpec("mobilenet_v2"),
    NetworkSpec("mobilenet_v2", {"channels": "256,128,64,32,16", "finest_scale": 0}),
)
POSE = (
    NetworkSpec("pose_exp_net", {"explainability": False}),
    NetworkSpec("pair_pose_net", {"encoder": "resnet18"}),
    NetworkSpec("pair_pose_net", {"encoder": "resnet50"}),
    NetworkSpec("pair_pose_net", {"encoder": "mobilenet_v2"}),
)


@dataclass
class Candidate:
    """A network with what was measured of it."""

    name: str
    paper: bool  # the others' times are divided by its time
    parameters: int
    step: Callable[[], None]
    seconds: list[float] = field(default_factory=list)


def main() -> None:
    torch.set_flush_denormal(True)  # as train.py does
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--height", type=positive_int, default=64, help="pixels of the images (default: 64)")
    parser.add_argument("--width", type=positive_int, default=208, help="pixels of the images (default: 208)")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="snippets (default: 8)")
    parser.add_argument("--rounds", type=positive_int, default=7, help="(default: 7)")
    parser.add_argument("--timm", nargs="*", default=[], metavar="NAME", help="networks of timm to time, too")
    add_device_flag(parser)
    args = parser.parse_args()
    device = choose_device(args.device)
    frames = torch.rand(3, args.batch_size, 3, args.height, args.width, device=device) * 2 - 1
    target, sources = frames[0], frames[1:].transpose(0, 1).contiguous()
    more = tuple(NetworkSpec(f"timm:{name}") for name in args.timm)
    depth = [candidate(make(DEPTH_NETS, spec), spec, (target,), device) for spec in DEPTH + more]
    pose = [candidate(make(POSE_NETS, spec), spec, (target, sources), device) for spec in POSE]
    for one in tqdm(depth + pose, desc="warming up", leave=False):
        one.step()
    for _ in tqdm(range(args.rounds), desc=f"measuring on {device}", leave=False):
        for one in depth + pose:
            start = time.perf_counter()
            one.step()
            one.seconds.append(time.perf_counter() - start)
    print(
        f"{device_name(device)}, {torch.get_num_threads()} threads, torch {torch.__version__}; "
        f"{args.width} x {args.height}, batch {args.batch_size}"
    )
    print(table([row(one, next(other for other in group if other.paper)) for group in (depth, pose) for one in group]))


def candidate(
    network: nn.Module, spec: NetworkSpec, inputs: tuple[torch.Tensor, ...], device: torch.device
) -> Candidate:
    network.to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), 1e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        outputs = network(*inputs)
        scales = outputs if isinstance(outputs, list) else [outputs[0]]
        torch.stack([scale.square().mean() for scale in scales]).sum().backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize()

    paper = spec.name in ("disp_net", "pose_exp_net")
    return Candidate(str(spec), paper, sum(parameter.numel() for parameter in network.parameters()), step)


def row(one: Candidate, paper: Candidate) -> dict[str, str]:
    ratios = [seconds / other for seconds, other in zip(one.seconds, paper.seconds, strict=True)]
    return {
        "network": one.name,
        "parameters": f"{one.parameters / 1e6:.1f} M",
        "ms": f"{1000 * statistics.median(one.seconds):.0f}",
        "best": f"{1000 * min(one.seconds):.0f}",
        "ratio": f"{statistics.median(ratios):.2f}",
    }


if __name__ == "__main__":
    run_script(main)
