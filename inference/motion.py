"""Camera motion by a trained pose network: of all snippets of a sequence, and the distances around single images."""

from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.augmentation import normalise
from evaluation.speed_scale import drive_images, snippet_frames, true_distances
from files.errors import InputError
from files.parallel import in_parallel
from geometry.pose import snippet_poses


def snippet_length(pose_net: Any, checkpoint: Path) -> int:
    """The number of frames of the network's snippets; InputError, which names the checkpoint, unless it is odd."""
    length = pose_net.sources + 1
    if length % 2 == 0:
        raise InputError(f"{checkpoint}: a pose network of {length} frames, expected an odd number")
    return length


def predict_sequence(
    pose_net: Any,
    images: list[Path],
    read: Callable[[Path], np.ndarray],
    batch_size: int,
    workers: int,
    title: str,
) -> np.ndarray:
    """The camera's motion in every snippet of neighbouring frames.

    Args:
        pose_net: in eval mode, on the device to be used.
        images: files of a sequence in order of time, as many as a snippet has frames, or more.
        read: an image at the network's size, uint8 [3, H, W]. Each image is read once.
        batch_size: snippets.
        workers: threads that read.
        title: of the progress bar.

    Returns:
        first_from_frame float64 [N, n, 3, 4] in the network's unit, N = len(images) - n + 1, n = sources + 1.
    """
    length = pose_net.sources + 1
    device = next(pose_net.parameters()).device
    batches = []
    with tqdm(total=len(images) - length + 1, desc=f"{title} on {device}", unit="snippet") as progress:
        for batch in overlapping_batches(in_parallel(read, images, workers), batch_size, length):
            batches.append(predict_snippets(pose_net, torch.from_numpy(batch).to(device)).numpy())
            progress.update(len(batches[-1]))
    return np.concatenate(batches)


def overlapping_batches(images: Iterator[np.ndarray], snippets: int, frames: int) -> Iterator[np.ndarray]:
    """Neighbouring images stacked for `snippets` snippets at a time (fewer at the end); each image is taken once."""
    window = list(islice(images, frames - 1))
    while new := list(islice(images, snippets)):
        window += new
        yield np.stack(window)
        window = window[len(new) :]


@torch.inference_mode()
def predict_snippets(pose_net: Any, images: Tensor) -> Tensor:
    """Poses in all snippets of neighbouring frames.

    Args:
        images: uint8 [F, 3, H, W], in order of time.

    Returns:
        first_from_frame float64 [F - n + 1, n, 3, 4] on the CPU, n = pose_net.sources + 1.
    """
    frames = normalise(images).unfold(0, pose_net.sources + 1, 1).movedim(-1, 1)  # [N, n, 3, H, W], a view
    return snippet_poses(_source_from_target(pose_net, frames).cpu().double())[..., :3, :]


def distances_around(
    pose_net: Any, root: Path, names: list[str], read: Callable[[Path], np.ndarray], batch_size: int, workers: int
) -> tuple[np.ndarray, np.ndarray]:
    """For the scale from the vehicle's speed: the predicted distances around each image of KITTI raw.

    Args:
        pose_net, read, batch_size, workers: as for `predict_sequence`.
        root: the folder that the images' names are relative to.

    Returns:
        The numbers of the frames around each image, int [N, n], and the distances from the middle one to the others,
        float64 [N, n - 1], in the network's unit.

    Raises:
        InputError: neighbouring frames, OXTS packets or time stamps are missing. Nothing is predicted then.
    """
    frames = [snippet_frames(root, name, pose_net.sources + 1) for name in names]
    for name, numbers in zip(names, frames, strict=True):
        true_distances(root, name, numbers)
    folders = [drive_images((root / name).parent) for name in names]
    files = [[images[number] for number in numbers] for images, numbers in zip(folders, frames, strict=True)]
    return np.array(frames), predicted_distances(pose_net, files, read, batch_size, workers)


@torch.inference_mode()
def predicted_distances(
    pose_net: Any, snippets: list[list[Path]], read: Callable[[Path], np.ndarray], batch_size: int, workers: int
) -> np.ndarray:
    """The camera's distance from the middle frame of each snippet to its other frames.

    Args:
        pose_net, read, batch_size, workers: as for `predict_sequence`.
        snippets: the image files of each snippet, in order of time.

    Returns:
        float64 [N, n - 1] in the network's unit.
    """
    device = next(pose_net.parameters()).device
    images = in_parallel(lambda files: np.stack([read(file) for file in files]), snippets, workers)
    distances = []
    with tqdm(total=len(snippets), desc=f"poses on {device}", unit="snippet") as progress:
        while batch := list(islice(images, batch_size)):
            frames = normalise(torch.from_numpy(np.stack(batch)).to(device))
            translation = _source_from_target(pose_net, frames)[..., :3, 3]
            distances.append(translation.contiguous().norm(dim=-1).cpu().double().numpy())
            progress.update(len(batch))
    return np.concatenate(distances)


def _source_from_target(pose_net: Any, frames: Tensor) -> Tensor:
    """The network's motions [B, n - 1, 4, 4] in snippets of frames [B, n, 3, H, W], the target in the middle."""
    middle = frames.shape[1] // 2
    sources = torch.cat([frames[:, :middle], frames[:, middle + 1 :]], 1)
    return pose_net(frames[:, middle].contiguous(), sources)[0]
