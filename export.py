"""Export what a checkpoint has learned: its weights, its networks as graphs for other programs, its learned camera."""

import argparse
from collections.abc import Iterator

from cli.flags import ArgumentParser, positive_int, run_script

import numpy as np
import torch
from path import Path

from datasets.layout import list_frames, read_scene_names, write_intrinsics
from files.atomic import write_bytes
from files.errors import InputError, UsageError
from files.images import read_image, resize_area
from files.outputs import check_outputs
from inference.depth import input_size
from inference.graphs import (
    INPUTS,
    OUTPUTS,
    TOLERANCE,
    DepthGraph,
    GraphOptions,
    PoseGraph,
    capture,
    graph_inputs,
    greatest_difference,
    onnx_runner,
    pt2_runner,
    to_onnx,
    to_pt2,
)
from models.checkpoint import LoadedModel, checkpoint_file, load_checkpoint, load_model
from models.pretrained import save_pretrained
from models.published import SUFFIX, publish

DESCRIPTION = """\
Export what a checkpoint has learned. The name of FILE tells what is written (docs/export.md):

  python export.py runs/my_run weights.safetensors --half   the networks' weights, which every script here takes
  python export.py runs/my_run my_model/                    the same as a folder with a model card, for a model hub
  python export.py runs/my_run depth.onnx                   the depth network for ONNX Runtime, TensorRT, ...
  python export.py runs/my_run depth.pt2 --input uint8 --output depth    the same for torch.export.load
  python export.py runs/my_run pose.onnx --network pose     the pose network
  python export.py runs/my_run cam.txt                      K of a learned camera

A graph (.onnx, .pt2) is run again and compared with the network on random and real images at two sizes. If they
differ, nothing is written and the exit status is 1."""

GRAPHS = (".onnx", ".pt2")
EXAMPLE_SIZE = (256, 384)  # by which ONNX graphs for any size are captured: no network shrinks it to one pixel
PICTURE = (
    Path(__file__).absolute().parent / "docs/pictures/world.png"
)  # images to compare on, where there are no others


def main() -> None:
    args = parse_arguments()
    checkpoint = checkpoint_file(args.checkpoint)
    if args.kind == "folder":
        save_pretrained(checkpoint, args.file, args.half)
        print(f"{args.file}: weights, config.json and a model card; look through README.md before it is published")
        return
    check_outputs({"weights" if args.kind == SUFFIX else "FILE": args.file}, [checkpoint])
    if args.kind == SUFFIX:
        publish(load_checkpoint(checkpoint), args.file, args.half)
        load_model(args.file)  # the file is read as its users will read it
        print(f"{args.file}: {args.file.size / 2**20:.1f} MiB")
    elif args.kind == ".txt":
        write_camera(load_model(checkpoint), checkpoint, args)
    else:
        write_graph(load_model(checkpoint), checkpoint, args)


def parse_arguments() -> argparse.Namespace:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("checkpoint", type=Path, help="a checkpoint, weights that were exported, or a run's folder (its last.pt)")
    add("file", type=Path, metavar="FILE", help="FILE.safetensors, FILE.onnx, FILE.pt2, FILE.txt, or a folder")
    flags = {
        add("--half", action="store_true", help="half-precision weights"): (SUFFIX, "folder"),
        add("--scene", help="learned camera of this training scene, where there are several cameras"): (".txt",),
        add("--height", type=positive_int, help="of the images in pixels (default: the training's)"): (*GRAPHS, ".txt"),
        add("--width", type=positive_int, help="of the images in pixels (default: the training's)"): (*GRAPHS, ".txt"),
    }
    group = parser.add_argument_group("graphs (.onnx, .pt2)")
    add = group.add_argument
    flags |= {
        add("--network", choices=("depth", "pose"), help="network to export (default: depth)"): GRAPHS,
        add("--input", choices=INPUTS, help="images in [-1, 1], or uint8 in 0 to 255 (default: float)"): GRAPHS,
        add("--output", choices=OUTPUTS, help="what a depth network returns (default: disparity)"): GRAPHS,
        add(
            "--fixed",
            nargs="+",
            choices=("batch", "size"),
            help="the graph takes this batch or size alone (default: any)",
        ): GRAPHS,
        add("--batch", type=positive_int, metavar="N", help="number of images with --fixed batch (default: 1)"): GRAPHS,
        add("--opset", type=positive_int, metavar="N", help="ONNX operators (default: the exporter's)"): (".onnx",),
        add(
            "--images",
            type=Path,
            nargs="+",
            metavar="FILE",
            help="real images to compare on (default: of the training data, where they are still there)",
        ): GRAPHS,
    }
    args = parser.parse_args()
    args.kind = args.file.suffix or "folder"
    if args.kind not in (SUFFIX, *GRAPHS, ".txt", "folder"):
        raise UsageError(
            f"{args.file}: expected a name that ends with {SUFFIX}, .onnx, .pt2 or .txt, or a folder's name"
        )
    for flag, kinds in flags.items():
        if getattr(args, flag.dest) and args.kind not in kinds:
            raise UsageError(f"{flag.option_strings[0]} goes with {', '.join(kinds)}, not with {args.file}")
    if args.network == "pose" and args.output:
        raise UsageError("--output goes with --network depth: a pose network returns transforms")
    if args.batch and "batch" not in (args.fixed or ()):
        raise UsageError(f"--batch {args.batch} goes with --fixed batch: without it the graph takes any batch")
    return args


def write_camera(loaded: LoadedModel, checkpoint: Path, args: argparse.Namespace) -> None:
    """Write K of a learned camera as `cam.txt`."""
    cameras = loaded.learned_cameras()
    if not cameras:
        raise InputError(
            f"{checkpoint}: has no learned camera; it was trained with K of the data (see --camera learned)"
        )
    number = 0
    if args.scene is not None:
        numbers = [number for number, camera in enumerate(cameras) if args.scene in camera.scenes]
        if not numbers:
            raise InputError(f"--scene {args.scene}: {checkpoint} was not trained on a scene of this name")
        number = numbers[0]
    elif len(cameras) > 1:
        names = ", ".join(camera.scenes[0] for camera in cameras[:3] if camera.scenes)
        raise InputError(f"{checkpoint}: has {len(cameras)} learned cameras; choose that of a --scene, such as {names}")
    camera = cameras[number]
    height, width = args.height or camera.height, args.width or camera.width
    intrinsics = camera.resized(height, width)
    write_intrinsics(args.file, intrinsics)
    print(
        f"{args.file}: fx {intrinsics[0, 0]:.2f}, fy {intrinsics[1, 1]:.2f}, cx {intrinsics[0, 2]:.2f}, "
        f"cy {intrinsics[1, 2]:.2f}, for images of {width} x {height} pixels"
    )


def write_graph(loaded: LoadedModel, checkpoint: Path, args: argparse.Namespace) -> None:
    """Write a network as a graph, after comparing it with the network; InputError where they differ."""
    role = args.network or "depth"
    network = loaded.depth_net if role == "depth" else loaded.pose_net
    if network is None:
        raise InputError(f"{checkpoint}: has no {role} network")
    fixed = args.fixed or ()
    options = GraphOptions(args.input or "float", args.output or "disparity", "batch" not in fixed, "size" not in fixed)
    height, width = input_size((args.height, args.width), (loaded.height, loaded.width))
    sources = None if role == "depth" else loaded.pose_net.sources
    graph: DepthGraph | PoseGraph
    graph = DepthGraph(network, options) if role == "depth" else PoseGraph(network, options)
    batch = (args.batch or 1) if "batch" in fixed else 2
    checked = args.kind == ".pt2"
    size = (height, width) if checked or not options.dynamic_size else EXAMPLE_SIZE
    example = random_frames(batch, sources, *size)
    print(f"capturing {loaded.specs[role]}; this can take minutes", flush=True)
    program = capture(graph.eval(), graph_inputs(example, sources, options), checked)
    about = {"network": str(loaded.specs[role]), "input": options.input, "checkpoint": checkpoint.name}
    output = options.output if role == "depth" else "source_from_target"
    content = to_pt2(program) if args.kind == ".pt2" else to_onnx(program, output, args.opset, about)

    run = pt2_runner(content) if args.kind == ".pt2" else onnx_runner(content)
    greatest = 0.0
    for name, frames in comparison_frames(args.images, loaded.data, batch, sources, height, width, options):
        inputs = graph_inputs(frames, sources, options)
        with torch.no_grad():
            expected = graph(*inputs.values()).numpy()
        difference = greatest_difference(expected, run(inputs))
        print(f"{name}: greatest relative difference {difference:.1e}")
        greatest = max(greatest, difference) if difference == difference else float("nan")
    if not greatest <= TOLERANCE:
        raise InputError(
            f"{args.file}: not written: the graph differs from the network by {greatest:.1e}, expected at most "
            f"{TOLERANCE:g}"
        )
    write_bytes(args.file, content)
    free = ", ".join(name for name, any_ in (("batch", options.dynamic_batch), ("size", options.dynamic_size)) if any_)
    names = ", ".join(graph_inputs(example, sources, options))
    taken = f"any {free}" if free else "fixed shape"
    print(f"{args.file}: {args.file.size / 2**20:.1f} MiB; {names} -> {output}; {taken}")


def comparison_frames(
    images: list[Path] | None,
    data: str | None,
    batch: int,
    sources: int | None,
    height: int,
    width: int,
    options: GraphOptions,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Random and real frames at two sizes and batches, unless they are fixed: name, uint8 [B, L, 3, H, W]."""
    length = 1 if sources is None else sources + 1
    pictures = find_pictures(images, data, length)
    other = (height + 13, width + 27) if options.dynamic_size else (height, width)  # one that no stride divides
    sizes = dict.fromkeys([(batch, height, width), (batch + options.dynamic_batch, *other)])
    for b, h, w in sizes:
        yield f"random images, {b} of {w} x {h}", random_frames(b, sources, h, w)
        resized = np.stack([resize_area(image, h, w).transpose(2, 0, 1) for image in pictures])
        chosen = [[(first + k) % len(resized) for k in range(length)] for first in range(b)]
        yield f"real images, {b} of {w} x {h}", torch.from_numpy(resized[np.array(chosen)])


def random_frames(batch: int, sources: int | None, height: int, width: int) -> torch.Tensor:
    """Noise, the same each time: uint8 [batch, sources + 1, 3, height, width]."""
    generator = torch.Generator().manual_seed(0)
    shape = (batch, 1 if sources is None else sources + 1, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def find_pictures(images: list[Path] | None, data: str | None, fewest: int) -> list[np.ndarray]:
    """Real images, uint8 [H, W, 3]: the given ones, else the first of the training data, else a picture of the docs."""
    if images:
        return [read_image(file) for file in images]
    pictures: list[np.ndarray] = []
    try:
        if data is not None:
            scene = read_scene_names(Path(data) / "train.txt")[0]
            pictures = [read_image(file) for file in list_frames(Path(data) / scene)[: fewest + 2]]
    except (InputError, OSError):
        pass  # the data have moved
    if pictures:
        return pictures
    picture = read_image(PICTURE)
    height, width = picture.shape[0] * 3 // 4, picture.shape[1] * 3 // 4
    return [picture[4 * k : 4 * k + height, 8 * k : 8 * k + width] for k in range(fewest + 2)]


if __name__ == "__main__":
    run_script(main)
