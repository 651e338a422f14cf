"""The check of a prepared data set: can a network learn depth and motion from it?

It reads the lists, the cameras and a sample of the frames. Two neighbouring frames contain information where the camera
has moved by an amount that a warp can bridge, and K is that of the images. What is certainly wrong is refused. What may
be wrong, or concerns some of the scenes only, is a warning.

`scene_check` measures one scene, `judgement` derives the causes, this module does both for a whole data set.
"""

from collections import Counter
from dataclasses import dataclass, field

from path import Path
from tqdm import tqdm

from datasets.layout import Scene, read_paths, read_scene, read_scene_names
from datasets.preparation.focal_check import MOST_CLIPS, FocalCheck, check_focal
from datasets.preparation.judgement import (
    ADVICE,
    LITTLE,
    WRONG_FOCAL,
    compare_scenes,
    judge_camera,
    judge_lists,
    judge_motion,
)
from datasets.preparation.scene_check import SceneCheck, measure_scene, median, spread
from datasets.view_pairs import LEAST_MOTION
from files.errors import InputError

LISTS = ("train.txt", "val.txt")
FEWEST_SNIPPETS = 30  # to train on; fewer give a warning
_WHOLE_SET = 0.9  # share of the compared training frames for which a whole set is refused
_EVIDENCE = 20  # compared pairs that such a refusal takes
_SOME = 0.5  # share of the training frames from which on little motion is a warning, not only a remark on the scene
_FEWEST_PAIRS = 4  # of a scene that is compared
_FEWEST_SCENES = 100  # that are compared, or all


@dataclass
class DataCheck:
    """The result for a data set: by scene, and a line for each cause."""

    scenes: list[SceneCheck]
    refusals: list[str]
    warnings: list[str]
    focal: FocalCheck = field(default_factory=FocalCheck)  # of the training scenes

    @property
    def pairs(self) -> int:
        """Compared pairs of neighbouring frames."""
        return sum(len(scene.pairs) for scene in self.scenes)

    @property
    def notes(self) -> list[str]:
        """What points that were tracked show of the whole set, a line each: motion, parallax, focal length."""
        return [*self.tracks, str(self.focal)] if self.focal.was_made else self.tracks

    @property
    def tracks(self) -> list[str]:
        """What tracks of points show of the whole set, in two lines: the gap that gives motion, and the parallax."""
        measured = [scene.parallax for scene in self.scenes if scene.parallax is not None]
        frames = sum(parallax.frames for parallax in measured)
        gaps = sorted(gap for parallax in measured for gap in parallax.gaps)
        problems = sum((parallax.problems for parallax in measured), Counter[str]())
        why = "; ".join(f"{count} x {problem}" for problem, count in problems.most_common())
        if not gaps:
            return [f"tracks: no parallax in {frames} frames: {why}"] if frames else []
        middle = median(gaps)
        points = median(count for parallax in measured for count in parallax.points)
        return [
            f"tracks: {LEAST_MOTION:.0f} pixels of motion are reached over a gap of {middle:.0f} "
            f"frame{'s' if middle > 1 else ''} in the median ({gaps[0]} to {gaps[-1]}) of {len(gaps)} frames",
            f"tracks: parallax beyond a rotation in {len(gaps)} of {frames} frames, {points:.0f} points each in the "
            f"median{f'; none: {why}' if why else ''}",
        ]

    def plain(self) -> dict:
        """The result as JSON."""
        return {
            "refused": self.refusals,
            "warnings": self.warnings,
            "pairs": self.pairs,
            "tracks": self.tracks,
            "focal": self.focal.plain(),
            "scenes": [scene.plain() for scene in self.scenes],
        }


def check_data(
    root: Path, length: int, most_pairs: int, all_headers: bool = True, most_clips: int = MOST_CLIPS
) -> DataCheck:
    """Check a prepared data set.

    Args:
        root: its folder.
        length: frames per snippet.
        most_pairs: pairs of neighbouring frames to compare, about 0.03 s each. Every scene gets its share, at least 4
            pairs. Of very many scenes (Cityscapes has thousands) a selection is compared: one for each 4 pairs, at
            least 100.
        all_headers: read the size of every frame, and name damaged frames. Without it only the compared frames count:
            for training, which opens all frames anyway and names the damaged ones.
        most_clips: clips of neighbouring frames by which the focal length is checked, about 0.2 s each; 0: it is not.

    Raises:
        InputError: the folder is no data set, or has no `train.txt`.
    """
    root = Path(root)
    checks, scenes = _read_scenes(root)
    names_found = list(scenes)
    wanted = max(_FEWEST_SCENES, most_pairs // _FEWEST_PAIRS)
    compared = {names_found[number] for number in spread(len(names_found), wanted)}
    total = sum(len(scene.frames) for scene in scenes.values())
    total_compared = sum(len(scenes[name].frames) for name in compared)
    with tqdm(total=total, desc="checking the data", unit="frame", leave=False, delay=2, disable=None) as bar:
        for name, scene in scenes.items():
            pairs = 0
            if name in compared:
                pairs = max(_FEWEST_PAIRS, round(most_pairs * len(scene.frames) / total_compared))
            measure_scene(checks[name], scene, length, pairs, all_headers)
            bar.update(len(scene.frames))
    for check in checks.values():
        judge_motion(check)
        judge_camera(check)
    compare_scenes(list(checks.values()))
    _refuse_whole_set(list(checks.values()))
    result = _sum_up(root, list(checks.values()), length)
    if most_clips and not result.refusals:
        _check_focal(result, scenes, most_clips)
    return result


def _read_scenes(root: Path) -> tuple[dict[str, SceneCheck], dict[str, Scene]]:
    """A check for each scene in the lists, and the scenes that can be read, by name."""
    if not root.is_dir():
        raise InputError(f"{root}: no such folder, expected a prepared data set (see data/prepare_kitti.py)")
    named_in: dict[str, list[str]] = {}
    for scene_list in LISTS:
        if scene_list == "train.txt" or (root / scene_list).is_file():
            read_scene_names(root / scene_list, may_be_empty=scene_list != "train.txt")  # refuses what is no list
            for name in read_paths(root / scene_list, root):  # a name as often as it is there
                named_in.setdefault(name, []).append(scene_list)
    checks = {name: SceneCheck(name, list(dict.fromkeys(lists))) for name, lists in named_in.items()}
    scenes = {}
    for name, check in checks.items():
        judge_lists(check, named_in[name])
        try:
            scenes[name] = read_scene(root / name)
        except (InputError, OSError) as error:
            check.refused["wrong K" if "cam.txt" in str(error) else "damaged scene"] = str(error)
    return checks, scenes


def _refuse_whole_set(checks: list[SceneCheck]) -> None:
    """Make refusals of the warnings about motion that hold for nearly all training frames."""
    training = [check for check in checks if "train.txt" in check.lists]
    compared = sum(check.frames for check in training if check.pairs)
    evidence = sum(len(check.pairs) for check in training)
    for causes in ({"motion too large"}, {"static video", "rotation only"}):  # of the latter a scene has at most one
        share = sum(check.frames for check in training if check.warned.keys() & causes) / max(1, compared)
        if share >= _WHOLE_SET and evidence >= _EVIDENCE:
            for check in training:
                for cause in check.warned.keys() & causes:
                    check.refused[cause] = check.warned.pop(cause)


def _sum_up(root: Path, checks: list[SceneCheck], length: int) -> DataCheck:
    """A line for each cause of a refusal or a warning."""
    refusals = [_line(cause, "refused", checks) for cause in ADVICE if any(cause in c.refused for c in checks)]
    training = [check for check in checks if "train.txt" in check.lists]
    warned = {cause for check in checks for cause in check.warned}
    slow = sum(check.frames for check in training if LITTLE in check.warned)
    if slow < _SOME * sum(check.frames for check in training if check.pairs):
        warned.discard(LITTLE)
    warnings = [_line(cause, "warned", checks) for cause in ADVICE if cause in warned]
    snippets = sum(check.snippets for check in training)
    if snippets < FEWEST_SNIPPETS:
        frames = sum(check.frames for check in training)
        text = f"too few frames: {root / 'train.txt'} has {frames} frames in {len(training)} scenes, which give "
        text += f"{snippets} snippets of {length}; {ADVICE['too few frames']}"
        (warnings if snippets else refusals).append(text)
    return DataCheck(checks, refusals, warnings)


def _check_focal(result: DataCheck, scenes: dict[str, Scene], most_clips: int) -> None:
    """Compare the focal lengths of the training scenes with what the images show, and warn where they differ."""
    training = [check.name for check in result.scenes if "train.txt" in check.lists and not check.refused]
    result.focal = check_focal([scenes[name] for name in training if name in scenes], most_clips)
    if result.focal.is_wrong:
        result.warnings.append(f"{WRONG_FOCAL}: {result.focal.finding}; {ADVICE[WRONG_FOCAL]}")


def _line(cause: str, level: str, checks: list[SceneCheck]) -> str:
    """A cause with the scenes that have it, the finding in the first of them, and what to do."""
    found = [(check.name, getattr(check, level)[cause]) for check in checks if cause in getattr(check, level)]
    names = ", ".join(name for name, _ in found[:3])
    if len(found) > 3:
        names = f"{len(found)} of {len(checks)} scenes ({names}, ...)"
    return f"{cause}: {names}: {found[0][1]}; {ADVICE[cause]}"
