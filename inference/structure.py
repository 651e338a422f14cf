"""Does the predicted depth of a clip have structure? Judged by the clip's own two-view geometry, without any truth."""

from typing import Any

import numpy as np
import torch
from path import Path

from datasets.view_pairs import find_pair
from evaluation.structure import collect_structure, rank_correlation, sample_at
from geometry.two_view import TwoViews
from inference.clip import PredictedClip

HARDLY_ANY = 0.25  # a lower rank correlation is named, as `training.collapse` warns of it


def judge_structure(predicted: PredictedClip, intrinsics: np.ndarray) -> dict[str, Any]:
    """Spearman's rank correlation of a clip's disparity with triangulated inverse depth, as `evaluation.structure` has
    it for training: the median over a sample of frames.

    Args:
        predicted: with `views`.
        intrinsics: K at the size of the views.

    Returns:
        Plain values: `rank_correlation`, None where no frame has points; `rank_correlation_of_image_row`, which a road
        alone gives; `pairs` of frames, their `points`, `frames_tried`; `without_points`, how many frames by reason.
    """
    if predicted.views is None:
        raise ValueError("predicted: has no views")
    views = predicted.views

    def find(number: int) -> tuple[Path, tuple[int, TwoViews] | None]:
        return Path(str(number)), find_pair(views, number, intrinsics, read=np.asarray)

    structure = collect_structure(len(predicted.names), find)
    scores = []
    for frame in structure.frames:
        disparity = torch.from_numpy(predicted.disparity[int(str(frame.frame))].copy())[None]
        # From pixels of the views to those of the disparity.
        shape = np.array(disparity.shape[:0:-1]) / np.array(views[0].shape[::-1])
        pixels = (frame.pixels + 0.5) * shape - 0.5
        scores.append(rank_correlation(sample_at(disparity, pixels), frame.inverse_depth))
    return {
        "rank_correlation": float(np.median(scores)) if scores else None,
        "rank_correlation_of_image_row": structure.row_score if scores else None,
        "pairs": len(scores),
        "points": structure.points,
        "frames_tried": len(scores) + structure.problems.total(),
        "without_points": dict(structure.problems.most_common()),
    }


def structure_line(judged: dict[str, Any]) -> str:
    """The result of `judge_structure` as a line."""
    score = judged["rank_correlation"]
    if score is None:
        why = "; ".join(f"{count}: {problem}" for problem, count in judged["without_points"].items())
        return f"structure: not measured: no points could be triangulated in {judged['frames_tried']} frames ({why})"
    verdict = ": depth is upside down" if score < 0 else ": hardly any structure" if score < HARDLY_ANY else ""
    return (
        f"structure: {score:.2f}{verdict}; rank correlation of disparity with inverse depth triangulated in "
        f"{judged['pairs']} pairs of frames ({judged['points']} points; the image row alone has "
        f"{judged['rank_correlation_of_image_row']:.2f})"
    )
