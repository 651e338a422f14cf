"""A picture of a predicted trajectory beside the true one."""

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from path import Path

from evaluation.metrics.trajectory import ALIGNMENTS, absolute_errors, align, path_lengths
from files.atomic import atomic_write
from files.text import printable

TRUE, PREDICTED, ROTATION = "0.55", "tab:blue", "tab:orange"


def write_trajectory_picture(
    file: Path, name: str, truth: np.ndarray, predicted: np.ndarray, alignment: str, errors: dict
) -> None:
    """Top view with starts and ends, position error over the path, and KITTI's drift over the segments' length.

    Args:
        file: a .png.
        name: of the sequence, for the title.
        truth, predicted: world_from_camera [F, 3, 4].
        alignment: one of `evaluation.trajectory.ALIGNMENTS`, applied to the prediction.
        errors: what `trajectory_errors` says of it.
    """
    aligned = align(truth, predicted, alignment).apply(predicted)
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplot_mosaic([["top", "position"], ["top", "drift"]], width_ratios=(1.25, 1))
    title = f"{printable(name)}: alignment {ALIGNMENTS[alignment]}, {path_lengths(truth)[-1]:.0f} m"
    figure.suptitle(title, fontsize=11, parse_math=False)  # a name may hold $
    _top_view(panels["top"], truth, aligned)
    _position_error(panels["position"], truth, aligned, errors["ate_m"])
    _drift(panels["drift"], errors)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=100)


def write_path_picture(file: Path, name: str, world_from_camera: np.ndarray, unit: str) -> None:
    """A trajectory without a truth: its top view, and height and heading over the path.

    Args:
        file: a .png.
        name: for the title.
        world_from_camera: [F, 3, 4], the first camera's frame: x right, y down, z forward.
        unit: of the positions, "m" or "".
    """
    figure = Figure(figsize=(12, 6.4), layout="constrained")
    panels = figure.subplot_mosaic([["top", "height"], ["top", "heading"]], width_ratios=(1.25, 1))
    path, unit = path_lengths(world_from_camera), f" ({unit or 'arbitrary unit'})"
    title = f"{printable(name)}: {len(path)} frames, {path[-1]:.3g}{unit}, no ground truth"
    figure.suptitle(title, fontsize=11, parse_math=False)
    x, y, z = world_from_camera[..., 3].T
    top, height, heading = panels["top"], panels["height"], panels["heading"]
    top.plot(x, z, color=PREDICTED, linewidth=1.6)
    top.plot(x[:1], z[:1], "o", color=PREDICTED, markeredgecolor="black", label="start")
    top.plot(x[-1:], z[-1:], "s", color=PREDICTED, markeredgecolor="black", label="end")
    top.set(xlabel=f"x, to the right{unit}", ylabel=f"z, forward{unit}", title="from above")
    top.set_aspect("equal", adjustable="datalim")
    top.legend(fontsize=8)
    height.plot(path, -y, color=PREDICTED, linewidth=1.2)
    height.set(ylabel=f"height above the start{unit}")
    forward = world_from_camera[:, :, 2]
    heading.plot(path, np.degrees(np.unwrap(np.arctan2(forward[:, 0], forward[:, 2]))), color=ROTATION, linewidth=1.2)
    heading.set(xlabel=f"path length{unit}", ylabel="heading, to the right (degrees)")
    for axes in panels.values():
        axes.grid(alpha=0.3)
    with atomic_write(file) as stream:
        figure.savefig(stream, format="png", dpi=100)


def _top_view(axes: Axes, truth: np.ndarray, predicted: np.ndarray) -> None:
    """The plane in which the true camera moves most: x and z on a road, with z forward."""
    extent = np.ptp(truth[..., 3], axis=0)
    right, forward = sorted(np.argsort(extent)[1:])
    for poses, colour, label, width, size in (
        (truth, TRUE, "ground truth", 3.0, 12),
        (predicted, PREDICTED, "predicted", 1.4, 7),
    ):
        x, y = poses[:, right, 3], poses[:, forward, 3]
        axes.plot(x, y, color=colour, linewidth=width, label=label, solid_capstyle="round")
        edge: dict[str, Any] = {"color": colour, "markeredgecolor": "black", "linestyle": "none", "zorder": 3}
        axes.plot(x[:1], y[:1], marker="o", markersize=size, label=f"start ({label})", **edge)
        axes.plot(x[-1:], y[-1:], marker="s", markersize=size, label=f"end ({label})", **edge)
    axes.set_aspect("equal", adjustable="datalim")
    axes.set_xlabel(f"{'xyz'[right]} (m)")
    axes.set_ylabel(f"{'xyz'[forward]} (m)")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _position_error(axes: Axes, truth: np.ndarray, predicted: np.ndarray, ate: float) -> None:
    axes.plot(path_lengths(truth), absolute_errors(truth, predicted), color=PREDICTED, linewidth=1.2)
    axes.axhline(ate, color="black", linestyle="--", linewidth=1, label=f"ATE (root mean square) {ate:.3g} m")
    axes.set_xlabel("path length (m)")
    axes.set_ylabel("position error (m)")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _drift(axes: Axes, errors: dict) -> None:
    axes.set_xlabel("length of the segments (m)")
    axes.set_ylabel("translation error (%)", color=PREDICTED)
    if not errors["by_length"]:
        axes.text(0.5, 0.5, "the true path is no longer than 100 m", ha="center", va="center", transform=axes.transAxes)
        axes.set(xticks=[], yticks=[])
        return
    lengths = list(errors["by_length"])
    for key, side, colour, marker, mean, unit in (
        ("t_err_percent", axes, PREDICTED, "o", "t_err", "%"),
        ("r_err_deg_per_100m", axes.twinx(), ROTATION, "s", "r_err", "deg / 100 m"),
    ):
        values = [errors["by_length"][length][key] for length in lengths]
        side.plot(lengths, values, color=colour, marker=marker, label=f"{mean}, all lengths: {errors[key]:.3g} {unit}")
        side.set_ylim(0, 1.3 * max(*values, 1e-9))
        side.legend(fontsize=8, loc="upper left" if side is axes else "upper right")
        if side is not axes:
            side.set_ylabel("rotation error (deg / 100 m)", color=colour)
    axes.grid(alpha=0.3)
