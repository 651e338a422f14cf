"""Warnings for trainings that collapse, from their logged values.

Each check looks at means over the last steps, since single batches mislead (the car stands, the wall is white). It
starts at a step by which a healthy run has passed its threshold. docs/training.md says where the thresholds come from.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from evaluation.structure import is_enough
from training.camera_log import TURN

FIRST_STEPS = 200  # no check before: new networks predict little spread and no motion
WINDOW = 500  # steps over which values are averaged
LOOKS = 4  # entries that the window must hold


@dataclass(frozen=True)
class Check:
    """A sign of collapse: `is_bad` is called with the means of the logged values by name."""

    name: str
    needs: tuple[str, ...]
    is_bad: Callable[[dict[str, float]], bool]
    message: str  # with the means by name
    from_step: int = FIRST_STEPS


WARP, IDENTITY = "photometric/warp", "photometric/identity_warp"
TRANSLATION, DISPARITY, SPREAD = "pose/translation", "disparity/mean", "disparity/spread"
MASK = "explainability/mean"
FEWEST_DEGREES = 0.2  # of turn per frame, by which a learned camera's focal length shows

CHECKS = (
    Check(
        "flat_disparity",
        (SPREAD,),
        lambda mean: mean[SPREAD] < 0.01,
        "disparity is the same everywhere: its spread is {disparity/spread:.4f} of its mean. Likely: the smoothness "
        "weighs too much (--smoothness-weight, --smoothed depth), frames between which the camera stands or only "
        "turns, or a wrong K",
    ),
    Check(
        "no_better_than_identity",
        (WARP, IDENTITY),
        lambda mean: mean[WARP] >= 0.995 * mean[IDENTITY],
        "the warped sources are no nearer to the target ({photometric/warp:.4f}) than the unwarped ones "
        "({photometric/identity_warp:.4f}): nothing has been learnt of depth and motion. Likely: frames between which "
        "the camera stands, motion of many pixels between frames, a wrong K, or a learning rate that is too large",
        1000,
    ),
    Check(
        "no_translation",
        (TRANSLATION, DISPARITY),
        lambda mean: mean[TRANSLATION] * mean[DISPARITY] < 2e-4,
        "the camera's translation goes to zero ({pose/translation:.6f} at a mean disparity of {disparity/mean:.2f}), "
        "and without it depth has no effect. Likely: frames between which the camera stands or only turns, or a "
        "smoothness that has flattened the depth",
    ),
    Check(
        "mask_hides_all",
        (MASK,),
        lambda mean: mean[MASK] < 0.1,
        "the explainability mask is {explainability/mean:.3f}: it hides the world, and nothing is learnt. Likely: its "
        "weight is too small (--explainability-weight), or the frames do not show one rigid scene",
    ),
    Check(
        "mask_hides_nothing",
        (MASK, WARP, IDENTITY),
        # A mask of ones is right where nothing moves. Together with a warp that explains little it is a bad sign.
        lambda mean: mean[MASK] > 0.99 and mean[WARP] >= 0.98 * mean[IDENTITY],
        "the explainability mask is {explainability/mean:.3f} everywhere although the warp explains next to nothing "
        "({photometric/warp:.4f}, unwarped {photometric/identity_warp:.4f}): the mask hides nothing. Likely: "
        "--explainability-weight is too large, or one of the causes that the warning no_better_than_identity gives",
        1000,
    ),
    Check(
        "camera_hardly_turns",
        (TURN,),
        lambda mean: mean[TURN] < FEWEST_DEGREES,
        "the predicted motion turns by {camera/turn_degrees:.2f} degrees between two frames, and a focal length can "
        "only be seen where the camera turns: the learned camera means little. Likely: drives without bends; measure "
        "the camera (--camera given), or add drives that turn",
        1000,
    ),
)


# Checks of a validation's scores. A healthy training may begin upside down or flat: they start in its middle, between
# the steps 300 and 2000, and always look at its last step. Flat depth has up to 0.2, by the slope of the road; see
# docs/training.md.
EARLIEST_START, LATEST_START = 300, 2000
STRUCTURE, PAIRS, POINTS = "structure", "structure_pairs", "structure_points"
VALIDATION_CHECKS = (
    Check(
        "no_structure",
        (STRUCTURE, PAIRS, POINTS),
        lambda mean: _is_judged(mean) and abs(mean[STRUCTURE]) <= 0.25,
        "depth shows no structure: the rank correlation of disparity with inverse depth triangulated from the frames "
        "is {structure:.2f}, expected 0.5 or more. Likely: flat depth, since the smoothness weighs too much "
        "(--smoothness-weight), frames between which the camera hardly moves (data/check_data.py tells the gap), a "
        "wrong K, or moving things that fill the picture",
        LATEST_START,
    ),
    Check(
        "depth_upside_down",
        (STRUCTURE, PAIRS, POINTS),
        lambda mean: _is_judged(mean) and mean[STRUCTURE] < -0.25,
        "depth is upside down: the rank correlation of disparity with inverse depth triangulated from the frames is "
        "{structure:.2f}, below 0: what is near is predicted far. Likely: frames between which the camera moves by "
        "less than a pixel (data/check_data.py tells the gap), frames in the wrong order, or a learning rate that is "
        "too large; start again with another --seed or a smaller --learning-rate",
        LATEST_START,
    ),
)


def _is_judged(mean: dict[str, float]) -> bool:
    """Whether two-view geometry has enough points to judge depth by."""
    return is_enough(mean[PAIRS], mean[POINTS])


def watch_validations(total_steps: int) -> "CollapseWatch":
    """A watch on single validations of a training of so many steps."""
    start = min(max(EARLIEST_START, total_steps // 2), total_steps)
    return CollapseWatch(VALIDATION_CHECKS, looks=1, window=0, start=start)


class CollapseWatch:
    """Keeps the recent entries of a training and returns the warnings that each new entry sets off."""

    def __init__(
        self, checks: tuple[Check, ...] = CHECKS, looks: int = LOOKS, window: int = WINDOW, start: float = math.inf
    ) -> None:
        """Watch by these checks.

        Args:
            looks: the entries that the window must hold.
            window: steps over which values are averaged; the last `looks` entries always count.
            start: a step from which all checks look, also those that start later by themselves.
        """
        self._checks, self._looks, self._window, self._start = checks, looks, window, start
        self._recent: deque[tuple[int, dict[str, float]]] = deque()
        self._warned: set[str] = set()

    def look(self, step: int, values: dict[str, float]) -> dict[str, str]:
        """Warnings, text by name. A warning is repeated only after its check has passed in between."""
        # Entries from a file may lack values that a newer version logs, or be damaged.
        self._recent.append((step, {name: value for name, value in values.items() if isinstance(value, float)}))
        while len(self._recent) > self._looks and self._recent[0][0] <= step - self._window:
            self._recent.popleft()
        warnings = {}
        for check in self._checks:
            recent = [past for _, past in self._recent if past.keys() >= set(check.needs)]
            started = step >= min(check.from_step, self._start)
            if not started or len(recent) < self._looks or any(name not in values for name in check.needs):
                continue
            means = {name: sum(past[name] for past in recent) / len(recent) for name in check.needs}
            if not check.is_bad(means):
                self._warned.discard(check.name)
            elif check.name not in self._warned:
                self._warned.add(check.name)
                warnings[check.name] = check.message.format_map(means)
        return warnings
