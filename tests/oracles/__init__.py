"""Formulas in plain float64, written apart from the product's code and without regard to speed, to compare it with.

Each module has inputs made by a rule from a seed (`make_inputs`) and the `figures` that belong to them. Tests compare
the product with these, and in a checkout that has them beside it, with the figures of reference implementations, too.
"""

import json
from types import ModuleType
from typing import Any

import numpy as np
from path import Path

FORMULA, REFERENCE = "formula", "reference"
_FOLDER = Path(__file__).absolute().parent.parent.parent.parent / "shared/reference"


def sources(name: str) -> list[str]:
    """Where figures of this name come from: the formula, and the reference implementation's file if it is there."""
    return [FORMULA, REFERENCE] if _FOLDER.is_dir() and _FOLDER.files(f"{name}.*") else [FORMULA]


def load_trajectory(source: str, oracle: ModuleType) -> dict[str, Any]:
    """`truth` and `predicted`, world_from_camera [F, 3, 4], and by alignment the `figures` of the prediction."""
    if source == FORMULA:
        truth, predicted = oracle.make_trajectories()
        figures = {
            alignment: oracle.trajectory_figures(truth, predicted, alignment)
            for alignment in ("none", "scale", "6dof", "7dof")
        }
        return {"truth": truth, "predicted": predicted, "figures": figures}
    folder = _FOLDER.parent / "kitti_odometry/trajectories"
    truth, predicted = (
        np.loadtxt(folder / f"00_{name}.txt").reshape(-1, 3, 4) for name in ("ground_truth", "orb_slam")
    )
    figures = json.loads((_FOLDER / "odometry_metrics.json").read_text())
    return {"truth": truth, "predicted": predicted, "figures": figures}


def load(name: str, source: str, oracle: ModuleType) -> dict[str, Any]:
    """Inputs and figures by name, from one of `sources`; `oracle` is a module of this folder."""
    if source == REFERENCE:
        figures = dict(np.load(_FOLDER / f"{name}.npz"))
        for sequence in ("09", "10") if name == "pose_snippets" else ():
            file = _FOLDER.parent / f"kitti_odometry/trajectories/{sequence}_ground_truth.txt"
            figures[f"{sequence}_poses"] = np.loadtxt(file).reshape(-1, 3, 4)
        return figures
    inputs = oracle.make_inputs()
    return {**inputs, **oracle.figures(inputs)}
