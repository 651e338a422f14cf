"""What is logged of a training step: loss, terms and diagnostics, summed up on the device, read back at intervals."""

import torch
from torch import Tensor

from geometry.pose import rotation_angle
from geometry.snippets import Snippets
from loss_functions import Loss
from models.sfm_learner import Prediction
from training import distributed
from training.validation import photometric_errors


class StepLog:
    """Gathers the batches of one step. Everything stays on the device until `values` is called."""

    def __init__(self, accumulate: int, device: torch.device) -> None:
        """`accumulate`: number of batches per step."""
        self._accumulate, self._device = accumulate, device
        self.keep = False  # the step's batches until its diagnostics are read, instead of computing those in the step
        self.clear()

    def begin(self, step: int, diagnose: bool) -> None:
        """Start a step on the host.

        Args:
            step: number of the step, the first is 1.
            diagnose: whether the step's diagnostics will be logged.
        """
        self.step, self.diagnose = step, diagnose
        self.indices: list[int] = []  # of the snippets
        self.damaged: list[str] = []  # a line for each image that could not be read

    def clear(self) -> None:
        """Start a step on the device."""
        self.loss = torch.zeros((), device=self._device)  # mean over the step's batches
        self.terms: dict[str, Tensor] = {}  # likewise
        self.last: tuple[Snippets, Prediction, Loss] | None = None  # the last batch, for pictures
        self._batches: list[tuple[Snippets, Prediction, Loss]] = []
        self._diagnostics: list[dict[str, Tensor]] = []

    def add(self, snippets: Snippets, prediction: Prediction, loss: Loss) -> None:
        """Add a batch after its backward pass."""
        self.loss = self.loss + loss.total.detach() / self._accumulate
        for name, term in loss.terms.items():
            part = term.detach() / self._accumulate
            self.terms[name] = self.terms[name] + part if name in self.terms else part
        if self.keep:
            self._batches.append((snippets, prediction, loss))
        elif self.diagnose:
            self._diagnostics.append(diagnostics(snippets, prediction, loss))
        self.last = (snippets, prediction, loss)

    def values(self) -> dict[str, float]:
        """Diagnostics of the whole step, of all batches and processes, in one copy to the host."""
        parts = self._diagnostics or [diagnostics(*batch) for batch in self._batches]
        means = torch.stack([torch.stack([v.float() for v in part.values()]) for part in parts]).mean(0)
        means = distributed.total(means) / distributed.count()
        values = dict(zip(parts[0], means.tolist(), strict=True))
        values["photometric/warp_over_identity"] = values["photometric/warp"] / max(
            values["photometric/identity_warp"], 1e-12
        )
        if self.last is not None:
            for name, weight in self.last[2].weights.items():
                share = weight * values[f"objective/{name}"]
                values[f"share/{name}"] = share / values["objective/loss"] if share else 0.0
        return values


@torch.no_grad()
def diagnostics(snippets: Snippets, prediction: Prediction, loss: Loss) -> dict[str, Tensor]:
    """Figures by which a person judges a step, on the device; of the finest scale where there are several.

    All are means over the snippets, so that they can be averaged over the batches of a step.
    """
    error, identity_error = photometric_errors(loss.warps[0].signed(), snippets.sources)
    disparity, transforms = prediction.disparities[0], prediction.source_from_target
    values = {"objective/loss": loss.total}
    values |= {f"objective/{name}": term for name, term in loss.terms.items()}
    values |= {
        "photometric/warp": error.mean(),
        "photometric/identity_warp": identity_error.mean(),
        "photometric/valid_pixels": loss.warps[0].valid.float().mean(),
        "disparity/mean": disparity.mean(),
        "disparity/spread": (disparity.std((1, 2, 3)) / disparity.mean((1, 2, 3))).mean(),
        "pose/translation": transforms[..., :3, 3].norm(dim=-1).mean(),
        "pose/rotation": rotation_angle(transforms[..., :3, :3]).mean(),
    }
    finest = loss.warps[0]
    if finest.auto_mask is not None:
        values["masks/auto_mask"] = finest.auto_mask.float().mean()
    if finest.geometry_mask is not None:
        kept = (finest.geometry_mask * finest.valid).sum() / finest.valid.sum().clamp(min=1)
        values["masks/geometry_mask"] = kept
    if prediction.mask_logits is not None:
        values["explainability/mean"] = prediction.mask_logits[0].sigmoid().mean()
    return values
