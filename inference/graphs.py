"""Networks as graphs that run without this project: ONNX and `torch.export`, each compared with the network itself."""

import io
import logging
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as sizes

from datasets.augmentation import normalise
from files.errors import InputError

INPUTS = ("float", "uint8")
OUTPUTS = ("disparity", "depth")
TOLERANCE = 1e-4  # relative difference between the network and its graph, both in float32
_LARGEST_SIDE, _LARGEST_BATCH = 2**14, 2**12
_LEAST_MOTION = 0.01  # motions below it are compared with it: float32 resolves 1e-7 beside the rotation's 1

Inputs = dict[str, Tensor]


@dataclass(frozen=True)
class GraphOptions:
    """What a graph takes and returns."""

    input: str = "float"  # images in [-1, 1], or uint8 in 0 to 255; RGB, channels first
    output: str = "disparity"  # of a depth network
    dynamic_batch: bool = True
    dynamic_size: bool = True


class DepthGraph(nn.Module):
    """image [B, 3, H, W] -> disparity or depth [B, 1, H, W] at the finest scale, in the network's unit."""

    def __init__(self, depth_net: nn.Module, options: GraphOptions) -> None:
        super().__init__()
        self.depth_net, self.options = depth_net, options

    def forward(self, image: Tensor) -> Tensor:
        disparity = self.depth_net(_images(image, self.options))[0]
        return 1 / disparity if self.options.output == "depth" else disparity


class PoseGraph(nn.Module):
    """target [B, 3, H, W], sources [B, N, 3, H, W] in order of time -> source_from_target [B, N, 4, 4]."""

    def __init__(self, pose_net: nn.Module, options: GraphOptions) -> None:
        super().__init__()
        self.pose_net, self.options = pose_net, options

    def forward(self, target: Tensor, sources: Tensor) -> Tensor:
        return self.pose_net(_images(target, self.options), _images(sources, self.options))[0]


def _images(images: Tensor, options: GraphOptions) -> Tensor:
    return normalise(images) if options.input == "uint8" else images


def graph_inputs(frames: Tensor, sources: int | None, options: GraphOptions) -> Inputs:
    """The inputs of a graph by name.

    Args:
        frames: uint8 [B, L, 3, H, W] in order of time, L = sources + 1, or 1 for a depth network.
        sources: number of source frames of a pose network; None for a depth network.
    """
    if options.input == "float":
        frames = normalise(frames)
    if sources is None:
        return {"image": frames[:, 0].contiguous()}
    middle = frames.shape[1] // 2
    others = torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1)
    return {"target": frames[:, middle].contiguous(), "sources": others}


def capture(graph: DepthGraph | PoseGraph, inputs: Inputs, checked: bool) -> ExportedProgram:
    """The graph of a network by `torch.export`.

    Args:
        graph: in evaluation mode, on the CPU.
        inputs: an example. Its batch and size are the graph's, unless they are dynamic.
        checked: the graph will be run by PyTorch, which refuses sizes that differ from the example's in kind: those
            whose coarsest features have one pixel. The graph is then captured without that distinction, which takes
            minutes for networks whose features shrink to a pixel. ONNX has no such check.

    Raises:
        InputError: the network cannot be captured, or works only with one size or batch.
    """
    options = graph.options
    batch = Dim.DYNAMIC(min=1, max=_LARGEST_BATCH) if options.dynamic_batch else Dim.STATIC
    side = Dim.DYNAMIC(min=32, max=_LARGEST_SIDE) if options.dynamic_size else Dim.STATIC
    shapes = {name: {0: batch, tensor.ndim - 2: side, tensor.ndim - 1: side} for name, tensor in inputs.items()}
    try:
        with _quiet(), torch.no_grad(), sizes.patch(backed_size_oblivious=checked):  # type: ignore[attr-defined]
            return torch.export.export(graph, tuple(inputs.values()), dynamic_shapes=shapes)
    except Exception as error:  # torch.export has no class of its own for what it cannot capture
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"the network cannot be exported: {reason}; try --fixed batch size") from error


def to_pt2(program: ExportedProgram) -> bytes:
    """A `.pt2` file, which `torch.export.load` reads."""
    content = io.BytesIO()
    with _quiet():
        torch.export.save(program, content)
    return content.getvalue()


def to_onnx(program: ExportedProgram, output: str, opset: int | None, about: Mapping[str, str]) -> bytes:
    """An ONNX file.

    Args:
        output: name of the output.
        opset: version of the operators; None for that of the installed PyTorch.
        about: the file's metadata.

    Raises:
        InputError: the packages that PyTorch needs for it are not installed, it failed, or it cannot write this
            version.
    """
    _require("onnx", "onnxscript")
    try:
        with _quiet():
            onnx = torch.onnx.export(program, dynamo=True, output_names=[output], opset_version=opset, verbose=False)
    except (torch.onnx.errors.OnnxExporterError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"PyTorch's ONNX exporter failed: {reason}") from error
    if onnx is None:  # only without dynamo
        raise InputError("PyTorch's ONNX exporter returned nothing")
    # Where the exporter cannot convert to a version, it only warns and keeps the one that it began with.
    reached = onnx.model.opset_imports[""]
    if opset is not None and reached != opset:
        raise InputError(f"--opset {opset}: PyTorch's exporter cannot write it, it reached version {reached}")
    onnx.model.metadata_props.update(about)
    return onnx.model_proto.SerializeToString()


def pt2_runner(content: bytes) -> Callable[[Inputs], np.ndarray]:
    """A function that runs a `.pt2` file."""
    with _quiet():
        module = torch.export.load(io.BytesIO(content)).module()

    def run(inputs: Inputs) -> np.ndarray:
        with torch.no_grad():
            return module(*inputs.values()).numpy()

    return run


def onnx_runner(content: bytes) -> Callable[[Inputs], np.ndarray]:
    """A function that runs an ONNX file by ONNX Runtime on the CPU. InputError if ONNX Runtime is not installed."""
    onnxruntime = _require("onnxruntime")
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])

    def run(inputs: Inputs) -> np.ndarray:
        try:
            (output,) = session.run(None, {name: tensor.numpy() for name, tensor in inputs.items()})
        except Exception as error:  # the runtime's own classes
            shapes = ", ".join(f"{name} {[*tensor.shape]}" for name, tensor in inputs.items())
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"ONNX Runtime cannot run the graph for {shapes}: {reason}; try --fixed size") from error
        return output

    return run


def greatest_difference(expected: np.ndarray, got: np.ndarray) -> float:
    """The greatest relative difference of a graph's output from the network's.

    Depths and disparities [B, 1, H, W] are compared pixel by pixel. Transforms [B, N, 4, 4] are compared with the
    greatest number in which one of them differs from the identity, or with 0.01 where all are smaller.
    """
    if expected.shape != got.shape:
        raise InputError(f"the exported graph returns {list(got.shape)}, the network {list(expected.shape)}")
    difference = np.abs(got.astype(np.float64) - expected)
    if expected.shape[-2:] == (4, 4):
        return float(difference.max() / max(np.abs(expected - np.eye(4)).max(), _LEAST_MOTION))
    return float((difference / np.abs(expected)).max())


def _require(*packages: str) -> Any:
    """The last of these packages. InputError with pip's command if one is not installed."""
    module = None
    for package in packages:
        try:
            module = __import__(package)
        except ImportError:
            raise InputError(
                f"ONNX needs the package {package}, which is not installed: pip install onnx onnxscript onnxruntime"
            ) from None
    return module


@contextmanager
def _quiet():
    """Without the exporters' own progress and advice, which concern their developers."""
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
