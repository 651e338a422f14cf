"""The second reading of a clip: everything that is written of it, frame by frame."""

import io
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
from path import Path
from PIL import Image
from tqdm import tqdm

from evaluation.trajectories import score_trajectory
from files.atomic import write_bytes, write_json
from files.errors import InputError
from files.images import resize_area
from inference.camera import resized_intrinsics
from inference.clip import PredictedClip
from inference.cloud import Fusion, PointCloud, write_ply
from inference.confidence import confidence
from inference.depth_files import depth_form, describe_depth, write_depth_file
from inference.frames import Clip, Frame, median_step
from inference.outputs import Export
from inference.page import PageContent, write_page
from inference.pictures import Range, draw, write_picture
from inference.scale import Scale
from inference.structure import structure_line
from inference.video import write_video

KINDS = {
    "depth": "depth/NAME.npy (or .png) of each frame, and depth.json, which says what the numbers mean",
    "pictures": "pictures/NAME.jpg: input and depth of each frame",
    "video": "video.mp4: the same as a video",
    "trajectory": "trajectory.txt (KITTI), trajectory_tum.txt (TUM), trajectory.png",
    "cloud": "cloud.ply: coloured points of all frames in the first camera's frame",
    "confidence": "confidence/NAME.png of each frame: 255 = sure",
    "html": "index.html: video, points and trajectory on one page that needs no net (writes the video, too)",
}
OF_CLIPS = ("video", "trajectory", "cloud", "html")  # not of single images
OF_MOTION = ("trajectory", "cloud")  # not without a trajectory
DEFAULT_OF_CLIPS = ("depth", "video", "trajectory", "cloud", "html")
DEFAULT_OF_IMAGES = ("depth", "pictures")
_NEAREST = 0.97  # share of the clip's disparities that the colours tell apart


@dataclass(frozen=True)
class Outputs:
    """What is written, and how."""

    kinds: frozenset[str]  # of KINDS
    depth_format: str = "npy"
    network_size: bool = False  # depth and confidence at the networks' size; else at the input's
    far: float | None = None  # depth from which on the cloud has no points, in its unit; None: 3 x the clip's median
    voxel: float | None = None  # side of the cloud's voxels, in its unit; None: far / 300
    sure: float = 0.5  # least confidence of the cloud's points


@dataclass(frozen=True)
class ScaledClip:
    """A predicted clip with its camera and its unit."""

    clip: Clip
    predicted: PredictedClip
    intrinsics: np.ndarray  # K, float64 [3, 3], in pixels of the clip's frames
    camera_source: str
    scale: Scale
    world_from_camera: np.ndarray | None  # float64 [F, 3, 4] in the unit of the disparities
    structure: dict[str, Any] | None = None  # of `judge_structure`; None for single images


def needs_mirror(kinds: frozenset[str]) -> bool:
    """Whether these outputs need the confidence, and so the prediction of the mirror images."""
    return bool(kinds & {"confidence", "cloud", "html"})


def write_results(folder: Path, result: ScaledClip, outputs: Outputs, about: dict[str, Any]) -> dict[str, Any]:
    """Write the outputs of a clip into a folder of its own.

    Args:
        folder: is made.
        about: what else depth.json says: checkpoint and sizes.

    Returns:
        For the report: `files`, how many of each kind; `notes`, a line each; scores where there is a truth.

    Raises:
        WriteError: the disk is full, or forbids it. What was written before is whole.
    """
    folder.makedirs_p()
    report: dict[str, Any] = {"files": {}, "notes": []}
    per_frame: list[Callable[[int, Frame], None]] = []
    at_end: list[Callable[[], None]] = []
    with ExitStack() as stack:
        if "depth" in outputs.kinds:
            per_frame.append(_depth_writer(folder, result, outputs, about, report))
        if outputs.kinds & {"pictures", "video", "html"}:
            per_frame.append(_picture_writer(folder, result, outputs, stack, report))
        if outputs.kinds & {"confidence", "cloud", "html"}:
            per_frame.append(_confidence_writer(folder, result, outputs, at_end, report))
        if per_frame:
            _read_again(result, per_frame)
    for finish in at_end:
        finish()
    if "trajectory" in outputs.kinds:
        _write_trajectory(folder, result, report)
    return report


def _read_again(result: ScaledClip, per_frame: list[Callable[[int, Frame], None]]) -> None:
    names = result.predicted.names
    with tqdm(total=len(names), desc=f"{result.clip.name}: writing", unit="image") as progress:
        count = 0
        for frame in result.clip.read([]):
            if count == len(names) or frame.name != names[count]:
                break
            for write in per_frame:
                write(count, frame)
            count += 1
            progress.update()
    if count < len(names):
        raise InputError(f"{result.clip.source}: changed while it was read: frame {names[count]} is gone")


def _depth_writer(
    folder: Path, result: ScaledClip, outputs: Outputs, about: dict[str, Any], report: dict[str, Any]
) -> Callable[[int, Frame], None]:
    clip, predicted, scale = result.clip, result.predicted, result.scale
    network = predicted.disparity[0].shape
    size = network if outputs.network_size else clip.size
    farthest = 1.02 * scale.value / predicted.disparity_quantile(0.0)  # the quantile is exact to 1 %
    form = depth_form(outputs.depth_format, scale.metric, farthest, size)
    intrinsics = None if clip.several_sizes else resized_intrinsics(result.intrinsics, clip.size, size).tolist()
    height, width = (None, None) if clip.several_sizes else clip.whole
    sidecar = describe_depth(form, scale.unit) | {
        "scale": {
            "value": scale.value,
            "source": scale.source,
            "spread": scale.spread,
            "frames_used": scale.frames_used,
            "motion": scale.motion,
        },
        "intrinsics": {"K": intrinsics, "source": result.camera_source, "of": "the depth files"},
        "input": {"source": str(clip.source), "width": width, "height": height},
        "crop": None if clip.crop is None else clip.crop.plain(),
        "network": {"width": network[1], "height": network[0]},
        "frames": len(predicted.names),
        "times": predicted.times if clip.ordered else None,
        "names": predicted.names,
        "structure": result.structure,
        **about,
    }
    if clip.several_sizes and not outputs.network_size:
        sidecar |= {"width": None, "height": None}
    (folder / "depth").makedirs_p()
    write_json(folder / "depth.json", sidecar)  # before the depth, which has no meaning without it
    report["files"] |= {"depth.json": 1, f"depth/*.{form.suffix}": 0}
    beyond = 0

    def write(index: int, frame: Frame) -> None:
        nonlocal beyond
        own = form
        if not outputs.network_size and frame.image.shape[:2] != form.size:  # single images of several sizes
            own = depth_form(form.suffix, scale.metric, farthest, frame.image.shape[:2])
        beyond += write_depth_file(folder / "depth" / frame.name, predicted.disparity[index], scale.value, own)
        report["files"][f"depth/*.{form.suffix}"] += 1
        if beyond:
            report["depth_pixels_beyond_16_bits"] = beyond

    return write


def _picture_writer(
    folder: Path, result: ScaledClip, outputs: Outputs, stack: ExitStack, report: dict[str, Any]
) -> Callable[[int, Frame], None]:
    predicted = result.predicted
    highest = predicted.disparity_quantile(_NEAREST)
    colours = Range(highest, result.scale.value, "m" if result.scale.metric else "")
    pictures, add = "pictures" in outputs.kinds, None
    if pictures:
        (folder / "pictures").makedirs_p()
        report["files"]["pictures/*.jpg"] = 0
    if outputs.kinds & {"video", "html"}:
        add = stack.enter_context(write_video(folder / "video.mp4", 1 / median_step(predicted.times)))
        report["files"]["video.mp4"] = 1

    def write(index: int, frame: Frame) -> None:
        picture = draw(frame.image, predicted.disparity[index], colours)
        if pictures:
            write_picture(folder / "pictures" / f"{frame.name}.jpg", picture)
            report["files"]["pictures/*.jpg"] += 1
        if add is not None:
            add(picture)

    return write


def _confidence_writer(
    folder: Path, result: ScaledClip, outputs: Outputs, at_end: list[Callable[[], None]], report: dict[str, Any]
) -> Callable[[int, Frame], None]:
    predicted, poses = result.predicted, result.world_from_camera
    intrinsics = resized_intrinsics(result.intrinsics, result.clip.size, predicted.disparity[0].shape)
    fusion = None
    if poses is not None and outputs.kinds & {"cloud", "html"}:
        far = outputs.far or 3 * result.scale.value / predicted.disparity_quantile(0.5)
        cloud = PointCloud(outputs.voxel or far / 300)
        fusion = Fusion(cloud, intrinsics, result.scale.value, far, outputs.sure)
        at_end.append(lambda: _write_cloud(folder, fusion, result, outputs, report))
    elif "html" in outputs.kinds:
        at_end.append(
            lambda: _write_page(folder, result, np.zeros((0, 3), np.float32), np.zeros((0, 3), np.uint8), report)
        )
    files = "confidence" in outputs.kinds
    if files:
        (folder / "confidence").makedirs_p()
        report["files"]["confidence/*.png"] = 0

    def write(index: int, frame: Frame) -> None:
        sure = confidence(predicted, index, poses, intrinsics)
        if files:
            size = sure.shape if outputs.network_size else frame.image.shape[:2]
            _write_grey(folder / "confidence" / f"{frame.name}.png", resize_area(sure, *size))
            report["files"]["confidence/*.png"] += 1
        if fusion is not None and poses is not None:
            fusion.add(frame.image, predicted.disparity[index], sure, poses[index])

    return write


def _write_cloud(folder: Path, fusion: Fusion, result: ScaledClip, outputs: Outputs, report: dict[str, Any]) -> None:
    points, colours = fusion.cloud.points()
    voxel = fusion.cloud.voxel
    report["cloud"] = {"points": len(points), "voxel": voxel, "far": fusion.far, "least_confidence": fusion.sure}
    if "cloud" in outputs.kinds:
        axes = "the first camera's frame: x right, y down, z forward"
        comments = [f"unit: {result.scale.unit}; {axes}", f"voxel: {voxel:.4g}"]
        write_ply(folder / "cloud.ply", points, colours, comments)
        report["files"]["cloud.ply"] = 1
    if "html" in outputs.kinds:
        _write_page(folder, result, points, colours, report)


def _write_page(
    folder: Path, result: ScaledClip, points: np.ndarray, colours: np.ndarray, report: dict[str, Any]
) -> None:
    poses, scale, times = result.world_from_camera, result.scale, result.predicted.times
    step = median_step(times)
    unit = f"unit: metres ({scale.source})" if scale.metric else f"scale: {scale.source}"
    facts = [
        f"{len(times)} frames, {len(times) * step:.1f} s; colours: near is bright, far is dark",
        f"{unit}; camera: {result.camera_source}",
    ]
    if result.clip.crop is not None:
        facts.append(f"crop: {result.clip.crop}")
    if result.structure is not None:
        facts.append(structure_line(result.structure))
    content = PageContent(
        title=result.clip.name,
        facts=facts,
        video=folder / "video.mp4",
        points=points,
        colours=colours,
        positions=None if poses is None else scale.value * poses[..., 3],
        times=[number * step for number in range(len(times))],  # of the video, which has one rate
        unit="m" if scale.metric else "",
    )
    write_page(folder / "index.html", content)
    report["files"]["index.html"] = 1


def _write_grey(file: Path, values: np.ndarray) -> None:
    """Values [h, w] from 0 to 1 as an 8-bit PNG."""
    content = io.BytesIO()
    Image.fromarray(np.rint(values.clip(0, 1) * 255).astype(np.uint8)).save(content, format="PNG")
    write_bytes(file, content.getvalue())


def _write_trajectory(folder: Path, result: ScaledClip, report: dict[str, Any]) -> None:
    poses, scale = result.world_from_camera, result.scale
    if poses is None:
        raise ValueError("result: has no trajectory")
    poses = poses.copy()
    poses[..., 3] *= scale.value
    truth, scores = result.clip.world_from_camera, None
    if truth is not None and len(truth) == len(poses) and len(truth) > 1:
        scores = score_trajectory(poses, truth, ["none", "7dof"] if scale.metric else ["scale", "7dof"])
        report["trajectory"] = scores
    times = np.array(result.predicted.times)
    unit = "m" if scale.metric else ""
    written = Export("trajectory", poses, times, None if scores is None else truth, scores, unit).write(folder)
    report["files"] |= {str(file.name): 1 for file in written}


def report_lines(report: dict[str, Any]) -> list[str]:
    """What a user reads of a clip's part of the report: notes, speed, scale, camera, structure, files."""
    scale, files, refined = report["scale"], report["files"], report["refinement"]
    shown = f"scale: {scale['source']}"
    if scale["unit"] == "metres":
        shown = f"scale: {scale['value']:.4g} m per unit ({scale['source']}"
        if scale["spread"] is not None:
            shown += f", spread {100 * scale['spread']:.1f} %, {100 * scale['frames_used']:.0f} % of the frames"
        if scale["motion"] is not None:
            shown += f", motion {scale['motion']:.4g} m per unit"
        shown += ")"
    lines = [*report["notes"], f"{report['frames']} images, {report['images_per_second']:.1f} images/s; {shown}"]
    lines.append(f"camera: {report['camera']['source']}")
    if report["structure"]:
        lines.append(structure_line(report["structure"]))
    if refined:
        losses = f"loss {refined['loss_of_first_tenth']:.4g} to {refined['loss_of_last_tenth']:.4g}"
        lines.append(f"refined by {refined['steps']} steps in {refined['seconds']:.0f} s, {losses}")
    wrote = [f"{count} {file}" if "*" in file else file for file, count in files.items()]
    lines.append(f"wrote {', '.join(wrote) or 'nothing'}")
    return lines
