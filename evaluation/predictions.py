"""From images to a file of predictions, and back: what the scripts that run a trained network share."""

import json
import os
from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from path import Path
from tqdm import tqdm

from files.errors import InputError
from files.images import read_image, resize_area, to_network_input
from files.untrusted import parse_json, read_npz

DEFAULT_SIZE = (128, 416)  # the paper's, for checkpoints that do not say what they were trained at
SMALLEST_SIDE = 32  # of an image that the networks can halve often enough


def input_size(by_flag: tuple[int | None, int | None], of_training: tuple[int | None, int | None]) -> tuple[int, int]:
    """The (height, width) that images are resized to: the flags' values, else the training's, else the paper's."""
    sides = [
        flag or trained or default for flag, trained, default in zip(by_flag, of_training, DEFAULT_SIZE, strict=True)
    ]
    if min(sides) < SMALLEST_SIDE:
        raise InputError(f"--height {sides[0]} --width {sides[1]}: the networks take images from {SMALLEST_SIDE} on")
    return sides[0], sides[1]


def read_resized(file: Path, height: int, width: int) -> np.ndarray:
    """An image at the network's size: uint8 [3, height, width]. A file that has this size already is not touched, so
    a full-size image and the same image resized beforehand give the same prediction."""
    return np.ascontiguousarray(resize_area(read_image(file), height, width).transpose(2, 0, 1))


@torch.inference_mode()
def predict_depth(
    depth_net: torch.nn.Module,
    images: Iterator[np.ndarray],
    count: int,
    batch_size: int,
    device: torch.device,
    flip_average: bool = False,
) -> np.ndarray:
    """The network's depth, 1 / disparity at the finest scale, of `count` images: float32 [count, H, W].

    Args:
        depth_net: in eval mode, on `device`.
        images: uint8 [3, H, W] each, all of one size (`read_resized`).
        flip_average: predict the mirrored image, too, and take `blend_flipped` of both.
    """
    depth: list[np.ndarray] = []
    with tqdm(total=count, desc=f"predicting on {device}", unit="image") as progress:
        while batch := list(islice(images, batch_size)):
            frames = to_network_input(torch.from_numpy(np.stack(batch)).to(device))
            disparity = depth_net(frames)[0]
            if flip_average:
                disparity = blend_flipped(disparity, depth_net(frames.flip(-1))[0].flip(-1))
            depth.extend((1 / disparity).squeeze(1).cpu().numpy())
            progress.update(len(batch))
    return np.stack(depth)


def blend_flipped(disparity: torch.Tensor, of_flipped: torch.Tensor) -> torch.Tensor:
    """An image's disparity and that of its mirror image (mirrored back), both [..., H, W], in one.

    The post-processing of Godard et al., "Unsupervised Monocular Depth Estimation with Left-Right Consistency"
    (monodepth, CVPR 2017): their mean, but within 5 % of the left border only the mirror image's, within 5 % of the
    right border only the image's own, and a linear change over the 5 % that follow.
    """
    width = disparity.shape[-1]
    position = torch.linspace(0, 1, width, device=disparity.device, dtype=disparity.dtype)
    left = 1 - (20 * (position - 0.05)).clamp(0, 1)
    right = left.flip(-1)
    return right * disparity + left * of_flipped + (1 - left - right) * 0.5 * (disparity + of_flipped)


def default_file(checkpoint: Path, kind: str) -> Path:
    """Where predictions are saved unless told otherwise: beside the checkpoint, `best.pt` -> `best_depth.npz`."""
    return checkpoint.parent / f"{checkpoint.name.split('.')[0]}_{kind}.npz"


def check_writable(file: Path, flag: str) -> None:
    """InputError if `file` cannot be written: better known before an hour's work than after it."""
    folder = file.absolute().parent
    if not folder.is_dir():
        raise InputError(f"{flag} {file}: no such folder {folder}")
    if not os.access(folder, os.W_OK):
        raise InputError(f"{folder}: no permission to write there; choose another place with {flag} FILE")
    if file.is_dir():
        raise InputError(f"{flag} {file}: is a folder, expected a file's name")


def save_predictions(file: Path, kind: str, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Write predictions as `.npz`: whole under their name, or not at all.

    Args:
        kind: what they are ("depth", "snippets"); `load_predictions` expects the same.
        arrays: by name; no Python objects.
        about: how they were made, as JSON.
    """
    part = Path(f"{file}.part")
    content: dict[str, Any] = {"about": np.array(json.dumps({"kind": kind} | about)), **arrays}
    try:
        with open(part, "wb") as stream:
            np.savez(stream, **content)
        part.rename(file)
    except OSError as error:
        part.unlink_p()
        raise InputError(f"{file}: could not be written ({error.strerror or error})") from None


def load_predictions(file: Path, kind: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """What `save_predictions` wrote: (arrays, about); InputError if the file is missing, damaged or something else.

    No code from the file runs, and no memory is taken for a size that only a damaged header claims.
    """
    file = Path(file)
    if not file.is_file():
        raise InputError(f"{file}: no such file")
    try:
        arrays = read_npz(file)
        about = parse_json(str(arrays.pop("about")))
        found = about["kind"]
    except Exception as error:  # zip, zlib, numpy and json each fail in their own ways on damage
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{file}: not a whole file of predictions ({reason:.200})") from None
    if found != kind:
        raise InputError(f"{file}: holds predictions of kind {found!r:.60}, expected {kind!r}")
    return arrays, about


def load_depth(file: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Predicted depth [h, w] by image name, and how it was made; InputError unless the file holds that."""
    arrays, about = load_predictions(file, "depth")
    return depth_by_name(arrays, file), about


def depth_by_name(arrays: dict[str, np.ndarray], file: Path) -> dict[str, np.ndarray]:
    """The depth [h, w] of each image, from the arrays of a file of predictions of depth; InputError if they aren't."""
    files, depth = arrays.get("files"), arrays.get("depth")
    if files is None or depth is None or files.dtype.kind != "U" or files.ndim != 1:
        raise InputError(f"{file}: expected arrays 'files' (names) and 'depth', found {', '.join(sorted(arrays))}")
    if depth.ndim != 3 or depth.dtype.kind != "f" or len(depth) != len(files):
        raise InputError(f"{file}: depth is {depth.dtype} {[*depth.shape]}, expected [{len(files)}, height, width]")
    return dict(zip(files.tolist(), depth, strict=True))
