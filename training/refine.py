"""Refinement at test time: some steps of training on the clip itself, from a checkpoint's weights.

Depth and pose network of a checkpoint have never seen the clip. Its own frames supervise them as those of a training
set do. It is what Chen et al., "Self-supervised learning with geometric constraints in monocular video" (ICCV 2019)
call online refinement.
"""

from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from datasets.augmentation import augment, draw_augmentation, normalise_snippets
from datasets.loading import seeded
from files.errors import InputError
from files.options import from_plain
from geometry.snippets import Snippets
from loss_functions import ObjectiveOptions, objective
from models import SfMLearner
from training.adam import FusedAdam

_SEED = 0
# Of checkpoints that do not say: monodepth2's (Godard et al., ICCV 2019), which needs no mask of the pose network.
OF_OTHERS = ObjectiveOptions(
    photometric_error="ssim",
    error_range="unit",
    over_sources="minimum",
    over_scales="mean",
    padding="border",
    auto_mask="minimum",
    scale_size="full",
    smoothness="edge-aware",
    smoothness_weight=1e-3,
    smoothed="normalised-disparity",
    explainability=False,
)


class Frames(Protocol):
    """Frames of a clip, uint8 [3, h, w] each, that are read as they are needed."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Refinement:
    """How a clip is learned."""

    steps: int
    learning_rate: float = 1e-4
    batch_size: int = 4


def stored_objective(options: dict[str, Any] | None, where: str) -> ObjectiveOptions:
    """The objective that a checkpoint was trained with; `OF_OTHERS` where it does not say.

    Args:
        options: the checkpoint's entry `options`.
        where: the checkpoint, for errors.

    Raises:
        InputError: a damaged entry.
    """
    stored = (options or {}).get("objective")
    # Without the prior, which is a network of the training alone.
    return OF_OTHERS if stored is None else replace(from_plain(ObjectiveOptions, stored, where), prior_weight=0.0)


def refine(
    depth_net: nn.Module,
    pose_net: Any,
    frames: Frames,
    intrinsics: np.ndarray,
    options: ObjectiveOptions,
    refinement: Refinement,
    title: str,
) -> list[float]:
    """Train both networks on the snippets of a clip, in place.

    They stay in evaluation mode: a clip is too little for BatchNorm's statistics. Half of the snippets are mirrored.

    Args:
        depth_net, pose_net: on the device to be used.
        frames: neighbours in order of time.
        intrinsics: K [3, 3] in pixels of the frames.
        title: of the progress bar.

    Returns:
        The loss of each step.

    Raises:
        InputError: fewer frames than a snippet has, or a loss that is not finite; the weights are then useless.
    """
    length = pose_net.sources + 1
    count = len(frames) - length + 1
    if count < 1:
        raise InputError(f"--refine: {len(frames)} frames, expected {length} or more, those of a snippet")
    model = SfMLearner(depth_net, pose_net)
    model.predicts_source_depth = options.compares_depth
    device = next(model.parameters()).device
    camera = torch.from_numpy(intrinsics).float().to(device)
    optimizer = FusedAdam(model.parameters(), refinement.learning_rate)
    order: list[int] = []
    losses = []
    for step in tqdm(range(refinement.steps), desc=f"{title}: refining on {device}", unit="step"):
        while len(order) < refinement.batch_size:
            order += torch.randperm(count, generator=seeded(_SEED, 0, step, len(order))).tolist()
        chosen, order = order[: refinement.batch_size], order[refinement.batch_size :]
        snippets = _read(frames, chosen, length).to(device)._replace(intrinsics=camera.expand(len(chosen), 3, 3))
        random = draw_augmentation(seeded(_SEED, 1, step), len(chosen))
        snippets = augment(normalise_snippets(snippets), random, "flip")
        optimizer.zero_grad()
        loss = objective(snippets, model(snippets), options, _noise(frames[0], step).to(device)).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
        if not np.isfinite(losses[-1]):
            raise InputError(f"--refine: the loss of step {step + 1} is not finite; try a lower --refine-rate")
    return losses


def _read(frames: Frames, first: list[int], length: int) -> Snippets:
    """The snippets of `length` frames that begin with these, without their camera."""
    batch = torch.from_numpy(np.stack([[frames[start + k] for k in range(length)] for start in first]))
    middle = length // 2
    return Snippets(
        batch[:, middle], torch.cat([batch[:, :middle], batch[:, middle + 1 :]], 1), torch.zeros(len(first), 3, 3)
    )


def _noise(frame: np.ndarray, step: int) -> Tensor:
    return torch.randn(*frame.shape[1:], generator=seeded(_SEED, 2, step))
