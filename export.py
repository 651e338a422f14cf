"""Export the networks of a checkpoint for publishing."""

import argparse

from path import Path

from cli.flags import run_script
from files.errors import UsageError
from files.outputs import check_outputs
from models.checkpoint import find_checkpoint, load_checkpoint, load_model
from models.published import SUFFIX, publish

DESCRIPTION = """\
Write the networks of a checkpoint as one safetensors file, without the optimiser's state.

  python export.py runs/my_run/best_abs_rel.pt weights.safetensors --half
  python test_depth.py weights.safetensors --kitti KITTI_RAW

The file names the networks, their arguments, the image size and the training scenes. It holds a third of a
checkpoint's bytes, a sixth with --half. Every script that takes a CHECKPOINT takes it."""


def main() -> None:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, help="a checkpoint of train.py, or a run's folder")
    parser.add_argument("weights", type=Path, help=f"file to write, with the suffix {SUFFIX}")
    parser.add_argument("--half", action="store_true", help="write half-precision weights")
    args = parser.parse_args()
    if args.weights.suffix != SUFFIX:
        raise UsageError(f"{args.weights}: expected a name that ends with {SUFFIX}")
    checkpoint = find_checkpoint(args.checkpoint, "last") if args.checkpoint.is_dir() else args.checkpoint
    check_outputs({"weights": args.weights}, [checkpoint])
    publish(load_checkpoint(checkpoint), args.weights, args.half)
    load_model(args.weights)  # the file is read as its users will read it
    print(f"{args.weights}: {args.weights.size / 2**20:.1f} MiB")


if __name__ == "__main__":
    run_script(main)
