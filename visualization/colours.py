"""Pictures of depth, warps and masks: tensors in, uint8 pictures [3, H, W] out."""

import matplotlib
import torch
from torch import Tensor
from torch.nn import functional

from geometry.snippets import Snippets
from loss_functions import Loss
from models.sfm_learner import Prediction


def colourise(values: Tensor, lowest: float, highest: float, colours: str) -> Tensor:
    """Values [..., H, W] between `lowest` and `highest` as colours of a matplotlib map: uint8 [..., 3, H, W]."""
    table = torch.from_numpy(matplotlib.colormaps[colours](torch.arange(256).numpy(), bytes=True)[:, :3].copy())
    indices = ((values - lowest) / max(highest - lowest, 1e-12) * 255).nan_to_num(0).clamp(0, 255).long().cpu()
    return table[indices].movedim(-1, -3)


def colour_disparity(disparity: Tensor) -> Tensor:
    """Disparities [B, 1, H, W] as pictures [B, 3, H, W], near is bright; each from 0 to its 95th percentile."""
    return torch.stack([colourise(item[0], 0, item.flatten().quantile(0.95).item(), "magma") for item in disparity])


def colour_depth(depth: Tensor) -> Tensor:
    """Depths [B, 1, H, W] as pictures [B, 3, H, W], near is bright; each from 0 to 3 times its median."""
    return torch.stack([colourise(item[0], 0, 3 * item.median().item(), "plasma_r") for item in depth])


def to_picture(images: Tensor) -> Tensor:
    """Images [..., 3, H, W] in the networks' range [-1, 1] as uint8."""
    return ((images.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()


def snippet_pictures(snippets: Snippets, prediction: Prediction, loss: Loss, most: int = 2) -> dict[str, Tensor]:
    """Pictures of a batch that show the images that the objective compared.

    Args:
        snippets: images in [-1, 1].
        prediction, loss: of these snippets.
        most: number of snippets that are shown, a column each.

    Returns:
        By name, uint8 [3, H, W]. In all but `target`, `disparity` and `depth`, there is a row for each source; the
        auto-mask of a minimum over the sources has one row.
    """
    target, sources = snippets.target[:most], snippets.sources[:most]
    disparities, logits, finest = prediction.disparities, prediction.mask_logits, loss.warps[0].signed()
    height, width = target.shape[2:]
    warped, valid = finest.warped[:most], finest.valid[:most, :, None]
    identity_error = (target[:, None] - sources).abs().mean(2)
    error = ((target[:, None] - warped).abs() * valid).mean(2)
    brightest = identity_error.flatten().quantile(0.98).item()  # one range for both errors, so that they compare
    scales = [
        functional.interpolate(colour_disparity(scale[:most]).float(), (height, width), mode="nearest").to(torch.uint8)
        for scale in disparities
    ]
    pictures = {
        "1_target": _grid([to_picture(target)]),
        "2_disparity_by_scale": _grid(scales),
        "3_depth": _grid([colour_depth(1 / disparities[0][:most])]),
        "4_sources": _grid(list(to_picture(sources).unbind(1))),
        "5_warped_sources": _grid(list(to_picture(torch.where(valid, warped, -1)).unbind(1))),
        "6_error_of_identity_warp": _grid(list(colourise(identity_error, 0, brightest, "inferno").unbind(1))),
        "7_error_of_warp": _grid(list(colourise(error, 0, brightest, "inferno").unbind(1))),
    }
    if logits is not None:
        masks = colourise(logits[0][:most].sigmoid(), 0, 1, "viridis")
        pictures["8_explainability"] = _grid(list(masks.unbind(1)))
    for title, kept in (("9_auto_mask", finest.auto_mask), ("9_geometry_mask", finest.geometry_mask)):
        if kept is not None:
            pictures[title] = _grid(list(colourise(kept[:most].float(), 0, 1, "viridis").unbind(1)))
    return pictures


def validation_pictures(target: Tensor, disparity: Tensor, depth: Tensor | None) -> dict[str, Tensor]:
    """Pictures of validation snippets: a column each with the target, predicted disparity and true inverse depth.

    Args:
        target: [B, 3, H, W] in [-1, 1].
        disparity: [B, 1, H, W].
        depth: true depth [B, H, W], 0 = unknown; None where there is none.

    Returns:
        By name, uint8 [3, H, W].
    """
    rows = [to_picture(target), colour_disparity(disparity)]
    if depth is not None and bool((depth > 0).any()):
        inverse = torch.where(depth > 0, 1 / depth.clamp(min=1e-3), 0)[:, None]
        rows.append(
            torch.stack([colourise(item[0], 0, max(item.max().item() * 0.5, 1e-6), "magma") for item in inverse])
        )
    return {"target_disparity_truth": _grid(rows)}


def _grid(rows: list[Tensor]) -> Tensor:
    """Rows of pictures, each uint8 [columns, 3, H, W], as one picture with white lines between and around them."""
    lines = [torch.cat([functional.pad(picture, (4, 0, 4, 0), value=255) for picture in row], dim=2) for row in rows]
    return functional.pad(torch.cat(lines, dim=1), (0, 4, 0, 4), value=255)
