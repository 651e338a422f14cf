"""Make the weights of this folder again: render a varied world, and train on it, guided by its true depth."""

import argparse
import math
import shlex
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from typing import Any

import torch
from path import Path
from tqdm import tqdm

ROOT = Path(__file__).absolute().parent.parent
sys.path.insert(0, ROOT)

from cli.flags import ArgumentParser, add_device_flag, choose_device, non_negative_int, positive_int, run_script

from datasets.synthetic.options import read_options
from datasets.synthetic.world import OPTIONS_FILE
from files.errors import InputError, UsageError
from files.memory import keep_freed_memory
from files.outputs import check_output
from models import NetworkSpec
from models.checkpoint import checkpoint_content
from models.encoder_weights import IMAGENET
from models.layers import rounded_size, to_channels_last
from models.published import SUFFIX, WORLD_FILE, publish
from training.guided import SIZES, draw_batches, guided_loss, read_world
from training.options import TrainOptions, new_options, plain_options
from training.start import make_model, make_optimizer, network_specs
from training.steps import learning_rate

DESCRIPTION = """\
Render a varied world and train the networks of the recipe small on it, guided by its true depth and motion. Nothing
real is shown to them; the encoder begins with the weights of ImageNet.

  make weights
  python weights/make_weights.py --encoder-weights mobilenet_v2-b0353104.pth --out mine.safetensors

The result is the file that `--start-from world` and `predict.py photo.jpg` use. weights/README.md is its model card."""


def main() -> None:
    torch.set_flush_denormal(True)
    keep_freed_memory()
    args = parse_arguments()
    device = choose_device(args.device)
    options = weights_options(args.encoder_weights, args.batch_size, args.steps, args.seed)
    if args.world is not None and args.world.exists():
        check_world(args.world, args)
    model, _ = make_model(options)  # before the world is rendered, since its encoder's weights may be missing
    with tempfile.TemporaryDirectory() if args.world is None else nullcontext(args.world) as folder:
        world = Path(folder)
        if args.world is None or not world.exists():
            render(world, args)
        drives = read_world(world)
    model.to(device).train()
    to_channels_last(model, device)
    optimizer = make_optimizer(model, options)
    batches = draw_batches(drives, args.batch_size, args.seed)
    bar = tqdm(range(args.steps), desc="training", unit="step", smoothing=0.05)
    for step in bar:
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(group["peak"], options, step, args.steps)
        snippets, truth = next(batches)
        optimizer.zero_grad()
        of_depth, of_motion = guided_loss(model, snippets.to(device), truth.to(device))
        (of_depth + of_motion).backward()
        optimizer.step()
        if step % 50 == 0:
            values = torch.stack([of_depth, of_motion]).tolist()
            if not all(map(math.isfinite, values)):
                raise InputError(f"step {step + 1}: the loss is not finite")
            bar.set_postfix_str(f"depth {values[0]:.3f}, motion {values[1]:.3f}", refresh=False)
    height, width = rounded_size(drives[0].images.shape[2:], SIZES[0])  # that of most batches
    snippets_of = sum(len(drive.images) - 2 for drive in drives)
    record = {"height": height, "width": width, "snippets": snippets_of, "processes": 1, "total_steps": args.steps}
    record["scenes"] = [f"world_{args.seed}_drive_{number:04d}" for number in range(1, len(drives) + 1)]
    standing = {"step": args.steps, "skipped": 0, "validation_due": False, "best": {}, "damaged": []}
    specs = network_specs(options, 1)
    content = checkpoint_content(model.cpu(), specs, optimizer, plain_options(options), record, standing)
    content["options"]["data"] = None  # the world is not kept
    publish(content, args.out, half=True)
    print(f"{args.out}: {args.out.size / 1e6:.1f} MB")


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", type=Path, default=WORLD_FILE, metavar="FILE", help="safetensors (default: weights/world.safetensors)")
    add("--world", type=Path, metavar="FOLDER", help="keep the world there, or take the one that is there")
    add("--drives", type=positive_int, default=1000, help="of the world (default: 1000)")
    add("--frames", type=positive_int, default=3, help="per drive (default: 3)")
    add("--width", type=positive_int, default=320, help="of the images (default: 320)")
    add("--height", type=positive_int, default=96, help="of the images (default: 96)")
    add("--steps", type=positive_int, default=6600, help="of training (default: 6600)")
    add("--batch-size", type=positive_int, default=8, help="snippets per step (default: 8)")
    weights = "first weights of the encoder (default: imagenet, which torchvision downloads)"
    add("--encoder-weights", default=IMAGENET, metavar="none|imagenet|FILE", help=weights)
    add("--seed", type=non_negative_int, default=7, help="seed of the world and of the training (default: 7)")
    add_device_flag(parser)
    args = parser.parse_args()
    if args.out.suffix != SUFFIX:
        raise UsageError(f"--out {args.out}: expected a name that ends with {SUFFIX}")
    check_output("--out", args.out, "weights", [])
    return args


def weights_options(encoder_weights: str, batch_size: int, steps: int, seed: int) -> TrainOptions:
    """The recipe small with the rate and the scales of depth and motion by which the weights here were made."""
    given: dict[str, Any] = {
        "recipe": "small",
        "encoder_weights": encoder_weights,
        "encoder_rate": 1.0 if encoder_weights == "none" else 0.3,
        "depth_net": NetworkSpec("mobilenet_v2", {"first_disparity": 0.6}),  # 10 m / 0.6: about the mean of a street
        "pose_net": NetworkSpec(
            "pose_exp_net", {"width": 0.5, "translation_scale": 0.5, "rotation_scale": 0.2, "orbit_depth": 0.83}
        ),
        "learning_rate": 1e-3,
        "beta2": 0.999,
        "batch_size": batch_size,
        "steps": steps,
        "seed": seed,
    }
    return new_options(given)


def check_world(world: Path, args: argparse.Namespace) -> None:
    """InputError if the world that is there is not the one that `render` would make with these flags."""
    there = read_options(world / OPTIONS_FILE)
    for name in ("drives", "frames", "width", "height", "seed"):
        found, expected = getattr(there, name), getattr(args, name)
        if found != expected:
            raise InputError(
                f"--world {world}: is a world of --{name} {found}, not of --{name} {expected}; give --{name} {found}, "
                "or a new folder"
            )


def render(world: Path, args: argparse.Namespace) -> None:
    """Render the varied world; InputError if it fails."""
    flags = ["--varied", "--mono", "--dense-depth", "--no-halts", "--drives", args.drives, "--frames", args.frames]
    flags += ["--width", args.width, "--height", args.height, "--seed", args.seed]
    words = ["data/make_world.py", world, *flags]
    print(f"$ python {shlex.join(map(str, words))}", flush=True)
    if subprocess.run([sys.executable, ROOT / words[0], *map(str, words[1:])], check=False).returncode:
        raise InputError("data/make_world.py failed, see above")


if __name__ == "__main__":
    run_script(main)
