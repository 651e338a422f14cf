"""Validation during training: against ground truth where the prepared data have it, by the photometric error, and by
two-view geometry."""

import numpy as np
import torch
from path import Path
from torch import Tensor
from tqdm import tqdm

from datasets.augmentation import normalise_snippets
from datasets.layout import read_paths
from datasets.loading import load_batches, read_batch
from datasets.snippets import SnippetDataset
from evaluation.metrics.depth import METRICS, DepthProtocol, image_metrics, mean_metrics
from evaluation.metrics.pose import snippet_ate, snippets
from evaluation.structure import Structure, score_structure
from files.errors import InputError
from geometry.pose import snippet_poses
from inverse_warp import inverse_warp
from loss_functions import Warps
from models import SfMLearner
from training import distributed

# Every pixel of the prepared depth counts; the published protocols, with their crops, are test_depth.py's.
PROTOCOL = DepthProtocol(cap=80, crop="none")


@torch.no_grad()
def validate(
    model: SfMLearner,
    dataset: SnippetDataset,
    batch_size: int,
    workers: int,
    damaged: set[str],
    structure: Structure | None = None,
) -> dict[str, float]:
    """Mean metrics over the snippets of a data set, with ground truth where it has any.

    The model is in evaluation mode meanwhile. On several processes each takes its share of the batches, and all get
    the metrics of the whole.

    Args:
        damaged: the damaged files that were named before; new ones are printed and added.
        structure: triangulated points of the data set's frames; those of the first process count.

    Returns:
        `photometric` and `photometric_identity` always; the depth metrics where there is a ground-truth depth; `ate`
        (as published: metres, with a scale for each snippet) where there are ground-truth poses; `structure`,
        `structure_pairs` and `structure_points` (`evaluation.structure`) where there are triangulated points.
    """
    was_training = model.training
    model.eval()
    try:
        scores = _validate(model, dataset, batch_size, workers, damaged)
        judged = {}
        if structure is not None and distributed.rank() == 0:
            judged = score_structure(model.depth_net, structure, batch_size)
        return scores | distributed.gather(judged)[0]
    finally:
        model.train(was_training)


@torch.no_grad()
def predict_examples(
    model: SfMLearner, dataset: SnippetDataset, count: int = 4
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Targets, predicted disparities and true depths of a few snippets, the same ones each time, for pictures.

    Returns:
        [n, 3, H, W] in [-1, 1], [n, 1, H, W], and [n, H, W] (0 = unknown), n up to `count`.
    """
    indices = torch.linspace(0, len(dataset) - 1, min(count, len(dataset))).round().long().unique().tolist()
    batch = read_batch(dataset, indices)
    was_training = model.training
    model.eval()
    target = normalise_snippets(batch.snippets.to(next(model.parameters()).device)).target
    disparity = model.depth_net(target)[0]
    model.train(was_training)
    return target, disparity, batch.depth


def _validate(
    model: SfMLearner, dataset: SnippetDataset, batch_size: int, workers: int, damaged: set[str]
) -> dict[str, float]:
    device = next(model.parameters()).device
    photometric = torch.zeros(2, dtype=torch.float64 if device.type != "mps" else torch.float32, device=device)
    depth_errors, ates = [], []
    batches = torch.arange(len(dataset)).split(batch_size)[distributed.rank() :: distributed.count()]
    loader = load_batches(dataset, [batch.tolist() for batch in batches], workers, device.type == "cuda")
    first = distributed.rank() == 0
    for batch in tqdm(loader, total=len(batches), desc="validation", leave=False, delay=1, disable=not first):
        now = normalise_snippets(batch.snippets.to(device))
        prediction = model(now)
        disparity, source_from_target = prediction.disparities[0], prediction.source_from_target
        warped, valid = inverse_warp(now.sources, 1 / disparity, source_from_target, prediction.intrinsics)
        photometric += torch.stack(photometric_errors(Warps(now.target, warped, valid), now.sources)).sum(1)
        depth_errors += _depth_metrics(disparity, batch.depth, batch.indices, dataset)
        ates += _ate(source_from_target, batch.poses)
        report_damaged(batch.damaged, damaged)

    shares = distributed.gather((photometric.tolist(), depth_errors, ates))
    error, identity_error = (sum(share[0][k] for share in shares) / len(dataset) for k in range(2))
    depth_errors = [errors for share in shares for errors in share[1]]
    ates = [ate for share in shares for ate in share[2]]
    scores = {"photometric": error, "photometric_identity": identity_error}
    if depth_errors:
        scores |= mean_metrics(depth_errors)
    if ates:
        scores["ate"] = float(np.mean(ates))
    return scores


def describe_scores(scores: dict[str, float]) -> str:
    """The scores of a validation in one line."""
    counts = ("structure_pairs", "structure_points")
    texts = [f"{name} {value:.4f}" for name, value in scores.items() if name not in counts]
    if "structure" in scores:
        texts.append(f"from {scores['structure_points']:.0f} points in {scores['structure_pairs']:.0f} frames")
    return ", ".join(texts)


def report_damaged(lines: list[str], damaged: set[str]) -> None:
    """Print the lines that are not yet in `damaged`, and add them: each file is named once in a run."""
    for line in lines:
        if line not in damaged:
            damaged.add(line)
            tqdm.write(f"skipped: {line}")


def photometric_errors(warps: Warps, sources: Tensor) -> tuple[Tensor, Tensor]:
    """Mean |target - warped| and mean |target - source| (the identity warp's error) over the same, valid, pixels.

    Both are [B], one value for each snippet, so that their mean does not depend on the batches. The images are in
    [-1, 1]: an error of 0.02 is 1 % of the range. Both are 1 where no pixel is valid.
    """
    count = 3 * warps.valid.sum((1, 2, 3))
    error = ((warps.target[:, None] - warps.warped).abs() * warps.valid[:, :, None]).sum((1, 2, 3, 4))
    identity_error = ((warps.target[:, None] - sources).abs() * warps.valid[:, :, None]).sum((1, 2, 3, 4))
    return torch.where(count > 0, error / count, 1), torch.where(count > 0, identity_error / count, 1)


def _depth_metrics(
    disparity: Tensor, truth: Tensor | None, indices: list[int], dataset: SnippetDataset
) -> list[dict[str, float]]:
    if truth is None:
        return []
    errors = []
    for depth, known, index in zip((1 / disparity[:, 0]).cpu().numpy(), truth.numpy(), indices, strict=True):
        if ((known > 0) & (known < PROTOCOL.cap)).any():
            metrics = image_metrics(depth, known, PROTOCOL, where=str(dataset.target_file(index)))
            errors.append({name: metrics[name] for name in METRICS})
    return errors


def _ate(source_from_target: Tensor, world_from_camera: Tensor | None) -> list[float]:
    if world_from_camera is None:
        return []
    predicted = snippet_poses(source_from_target.cpu().double())[:, :, :3].numpy()
    known = np.isfinite(world_from_camera.numpy()).all((1, 2, 3))
    if not known.any():
        return []
    length = predicted.shape[1]
    truth = np.concatenate([snippets(poses, length) for poses in world_from_camera.numpy()[known]])
    return snippet_ate(truth, predicted[known]).tolist()


def open_validation(root: Path, length: int, size: tuple[int, int], fov: float | None = None) -> SnippetDataset | None:
    """The validation snippets of a prepared data set; None where its `val.txt` is missing or empty.

    Args:
        size: (height, width) of the training images; InputError for validation images of another size.
        fov: as for `SnippetDataset`.
    """
    file = root / "val.txt"
    if not file.is_file() or not read_paths(file, root):
        return None
    dataset = SnippetDataset(root, "val.txt", length, ground_truth=True, fov=fov)
    if (dataset.height, dataset.width) != size:
        raise InputError(
            f"{file}: its scenes have {dataset.width} x {dataset.height} pixels, "
            f"those of train.txt {size[1]} x {size[0]}; expected one size"
        )
    return dataset
