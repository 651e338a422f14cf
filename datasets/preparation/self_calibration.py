"""The focal length of a video without calibration, from the video itself: structure from motion by COLMAP.

A turn by the angle r moves a pixel at x from the centre by r (f + x^2 / f): the images tell the focal length f where
the camera turns, and only there. So the sections in which the view turns most are reconstructed
(`turns.choose_sections`), each by COLMAP's incremental mapping with one pinhole camera, its centre in the middle of the
picture, from several first guesses of f. Bundle adjustment refines f. The estimate is the median of the sections. There
is none where few images are registered, the camera hardly turns, the guesses lead to different f, or the sections do.

Schoenberger and Frahm, Structure-from-Motion Revisited, CVPR 2016. pycolmap is COLMAP's Python package.
"""

import math
import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import wait
from typing import Any

import cv2
import numpy as np
from path import Path
from tqdm import tqdm

from datasets.formats.video import Reading
from datasets.layout import SELF_CALIBRATION
from datasets.preparation.turns import (
    FRAMES_PER_SECOND,
    Section,
    choose_sections,
    grey_picture,
    measure_motion,
)
from datasets.preparation.video_inputs import Input
from datasets.preparation.view import focal_length
from files.atomic import write_json
from files.errors import InputError
from files.images import image_size
from files.parallel import end_with_parent, signals_held
from files.text import read_json

INSTALL = "pip install pycolmap"
MOST_FRAMES = 6000  # of all inputs of one camera, that are looked at: ten minutes
MOST_SECTIONS = 3
LONGEST_SIDE = 1000  # pixels: larger pictures are reduced
FEWEST_REGISTERED = 15
LEAST_REGISTERED = 0.6  # share of a section's images that one reconstruction must have
LEAST_TURN_DEGREES = 20.0  # between two images of a section
LARGEST_ERROR = 0.8  # pixels, mean reprojection error
RIVAL_ERROR = 1.2  # a run from another first guess counts if its reprojection error is at most this times the least
LARGEST_SPREAD = 0.1  # of f: the difference between sections, or between first guesses, over the median
LEAST_ANGLE, LARGEST_ANGLE = 15.0, 130.0  # degrees along the longer side that a camera with a pinhole's picture has
_GUESSES = (75.0, 60.0, 90.0)  # degrees along the longer side
_AGREE = 0.03  # of f: guesses that lead this near to each other make the next ones needless
_SMALL = 700  # pixels: features of pictures with a shorter longer side are found at twice their size
_FEATURES, _OVERLAP, _PEAK = 1200, 6, 0.004
_OUTLIER = 2.0  # pixels: with COLMAP's 4, mappings ended up to 24 % beside the true f
_ROBUST = 0.5  # pixels, the scale of the robust loss
_SEED = 0
_POLL = 0.2  # seconds between two updates of the progress bar


@dataclass(frozen=True)
class SelfCalibration:
    """A focal length that was estimated."""

    focal: float  # pixels of the input
    record: dict[str, Any]  # for camera.json

    def __str__(self) -> str:
        record = self.record
        angle = math.degrees(2 * math.atan(max(record["size"]) / 2 / self.focal))
        spread = "" if record["spread"] is None else f", which differ by {100 * record['spread']:.1f} %"
        sections = len(record["sections"])
        return (
            f"f = {self.focal:.1f} pixels, {angle:.1f} degrees along the longer side, from {record['images']} images "
            f"in {sections} section{'s' if sections > 1 else ''}{spread}; the camera turns by "
            f"{record['turn_degrees']:.0f} degrees"
        )


def missing_package() -> str | None:
    """Why pycolmap cannot be used, with what to do about it; None if it can."""
    try:
        import pycolmap  # noqa: F401
    except ImportError as error:
        return f"pycolmap is not installed ({INSTALL})" if error.name == "pycolmap" else f"pycolmap: {error}"
    return None


def self_calibrate(
    inputs: Sequence[Input], processes: int, margins: tuple[int, int, int, int] = (0, 0, 0, 0)
) -> SelfCalibration | str:
    """The focal length of the camera that recorded the inputs, or a line that says why it cannot be told.

    Args:
        inputs: all of one size, and of one camera.
        processes: that reconstruct sections at the same time.
        margins: pixels at the left, top, right and bottom in which nothing is looked for, such as a bonnet.
    """
    width, height = inputs[0].size
    sections = find_sections(inputs, processes)
    if not sections:
        return "the view hardly turns, or too few frames are neighbours"
    with tempfile.TemporaryDirectory(prefix="self-calibration-") as name:
        folders = [Path(name) / f"section_{number}" for number in range(len(sections))]
        write_sections(inputs, sections, folders, margins)
        results = reconstruct_all(folders, [len(section.frames) for section in sections], processes)
    names = [str(inputs[section.source].path.absolute().name) for section in sections]
    return combine(results, sections, names, (width, height))


def find_sections(inputs: Sequence[Input], threads: int) -> list[Section]:
    """The sections of the inputs to reconstruct, the one with the largest turn first."""
    motions = []
    left = MOST_FRAMES
    total = min(left, sum(source.expected(FRAMES_PER_SECOND) for source in inputs))
    with tqdm(total=total, unit="frame", desc="looking for turns", leave=False, delay=2) as bar:
        for source in inputs:
            motions.append(measure_motion(source, left, threads, bar.update) if left else [])
            left -= len(motions[-1])
    return choose_sections(motions, MOST_SECTIONS)


def write_sections(
    inputs: Sequence[Input], sections: Sequence[Section], folders: Sequence[Path], margins: tuple[int, int, int, int]
) -> None:
    """Write each section's images as grey PNG into its folder's images/, and where to look for features as mask.png."""
    left, top, right, bottom = margins
    for folder in folders:
        (folder / "images").makedirs()
    for number, source in enumerate(inputs):
        own = [(s, folder) for s, folder in zip(sections, folders, strict=True) if s.source == number]
        wanted = {frame: folder for section, folder in own for frame in section.frames}
        if not wanted:
            continue
        for frame in source.frames(FRAMES_PER_SECOND, Reading(), 1):
            if frame.number > max(wanted):
                break
            if frame.number not in wanted:
                continue
            try:
                grey = grey_picture(frame.image(), LONGEST_SIDE)
            except (InputError, OSError):
                continue
            _write_png(wanted[frame.number] / f"images/{frame.number:07d}.png", grey)
        if any(margins):
            mask = np.zeros((source.size[1], source.size[0], 3), dtype=np.uint8)
            mask[top : source.size[1] - bottom, left : source.size[0] - right] = 255
            for _, folder in own:
                _write_png(folder / "mask.png", grey_picture(mask, LONGEST_SIDE))


def _write_png(file: Path, image: np.ndarray) -> None:
    if not cv2.imwrite(str(file), image):
        raise InputError(f"{file}: cannot be written; is the disk full? TMPDIR names another one")


def reconstruct_all(folders: Sequence[Path], images: Sequence[int], processes: int) -> list[dict[str, Any]]:
    """`reconstruct` each folder, several at a time, with a progress bar.

    Each has a process of its own, so that a stop need not wait for COLMAP, and an end of the process from outside is
    the end of that section alone.

    Args:
        images: how many each folder has.
    """
    context = multiprocessing.get_context()
    done = context.Value("q", 0)
    waiting = [context.Process(target=_work, args=(folder, done), daemon=True) for folder in folders]
    running: list[Any] = []
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # a forked process has none of OpenCV's threads, and would wait for them
    try:
        with tqdm(total=_steps(sum(images)), unit="image", desc="self-calibration") as bar:
            while waiting or running:
                while waiting and len(running) < processes:
                    with signals_held(signal.SIGINT):
                        waiting[0].start()
                        running.append(waiting.pop(0))
                wait([process.sentinel for process in running], _POLL)
                running = [process for process in running if process.is_alive()]
                if (more := min(done.value, bar.total) - bar.n) > 0:
                    bar.update(more)
            bar.update(bar.total - bar.n)
    finally:
        for process in running:
            process.kill()  # at a milder signal COLMAP prints where it was
            process.join()
        cv2.setNumThreads(threads)
    missing = {"problem": "COLMAP ended without a result"}
    return [read_json(file) if (file := folder / "result.json").is_file() else missing for folder in folders]


def _steps(images: int) -> int:
    """Units of the progress bar: features of each image, and its registration for two guesses."""
    return 3 * images


def _work(folder: Path, done: Any) -> None:
    def count() -> None:
        with done.get_lock():
            done.value += 1

    end_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends this process
    with open(os.devnull, "w") as nothing:  # COLMAP writes to the descriptor, whatever its log level
        os.dup2(nothing.fileno(), 2)
    try:
        result = reconstruct(folder, count)
    except Exception as error:  # what COLMAP raises is its own
        result = {"problem": " ".join(str(error).split())[:200]}
    write_json(folder / "result.json", result)


def reconstruct(folder: Path, count: Callable[[], None] = lambda: None) -> dict[str, Any]:
    """Structure from motion on the images of a folder, from several first guesses.

    Deterministic: one thread, a fixed seed.

    Args:
        folder: with images/, all of one size, and optionally mask.png, which is 0 where nothing is looked for.
        count: called for each image when its features are found, and whenever one is registered.

    Returns:
        "images" in the folder, and "runs": one for each guess, until two agree, with "registered" images, "points",
        "reprojection_error" in pixels, "turn_degrees" between the two images that differ most, "focal" over the longer
        side. A guess from which nothing could be reconstructed has none.
    """
    import pycolmap

    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    images = sorted((folder / "images").files("*.png"))
    if not images:
        return {"images": 0, "runs": []}
    height, width = image_size(images[0])
    database = str(folder / "database.db")
    extraction = pycolmap.FeatureExtractionOptions()
    extraction.use_gpu, extraction.num_threads = False, 1
    extraction.sift.max_num_features, extraction.sift.peak_threshold = _FEATURES, _PEAK
    extraction.sift.first_octave = -1 if max(width, height) < _SMALL else 0
    reader = pycolmap.ImageReaderOptions()
    # COLMAP takes a given camera as known to begin with. Without one it tries no essential matrices, and the first pair
    # of images often fails.
    reader.camera_model = "SIMPLE_PINHOLE"
    reader.camera_params = f"{focal_over_longer(_GUESSES[0]) * max(width, height)},{width / 2},{height / 2}"
    if (folder / "mask.png").is_file():
        reader.camera_mask_path = str(folder / "mask.png")
    pycolmap.set_random_seed(_SEED)
    for image in images:
        pycolmap.extract_features(
            database,
            str(folder / "images"),
            [str(image.name)],
            pycolmap.CameraMode.SINGLE,
            reader_options=reader,
            extraction_options=extraction,
        )
        reader.existing_camera_id = 1  # all images have the camera of the first one
        count()
    match(database)
    runs: list[dict[str, Any]] = []
    for guess in _GUESSES:
        run = map_images(folder, database, focal_over_longer(guess), count)
        runs += [run] if run is not None else []
        if len(runs) > 1 and agree(runs, len(images)):
            break
    return {"images": len(images), "runs": runs}


def match(database: str) -> None:
    """Match each image with the ones after it, and verify the matches by two-view geometry."""
    import pycolmap

    matching, pairing = pycolmap.FeatureMatchingOptions(), pycolmap.SequentialPairingOptions()
    matching.use_gpu, matching.num_threads = False, 1
    pairing.overlap, pairing.quadratic_overlap, pairing.num_threads = _OVERLAP, False, 1
    verification = pycolmap.TwoViewGeometryOptions()
    verification.ransac.random_seed = _SEED
    pycolmap.match_sequential(
        database, matching_options=matching, pairing_options=pairing, verification_options=verification
    )


def map_images(folder: Path, database: str, guess: float, count: Callable[[], None]) -> dict[str, Any] | None:
    """One incremental mapping from a first guess of the focal length over the longer side; see `reconstruct`."""
    import pycolmap

    store = pycolmap.Database.open(database)
    (camera,) = store.read_all_cameras()
    longer = max(camera.width, camera.height)
    camera.params = [guess * longer, camera.width / 2, camera.height / 2]  # COLMAP's first pixel has its centre at 0.5
    store.update_camera(camera)
    store.close()
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed = 1, _SEED
    options.multiple_models, options.extract_colors = False, False
    options.ba_refine_focal_length, options.ba_refine_principal_point = True, False
    options.mapper.filter_max_reproj_error = _OUTLIER
    models = pycolmap.incremental_mapping(
        database, str(folder / "images"), str(folder / "model"), options=options, next_image_callback=count
    )
    if not models:
        return None
    model = max(models.values(), key=lambda one: one.num_reg_images())
    refine(model)
    rotations = np.stack([model.image(i).cam_from_world().rotation.matrix() for i in model.reg_image_ids()])
    cosines = (np.einsum("nij,mij->nm", rotations, rotations) - 1) / 2
    (camera,) = model.cameras.values()
    return {
        "registered": int(model.num_reg_images()),
        "points": int(model.num_points3D()),
        "reprojection_error": float(model.compute_mean_reprojection_error()),
        "turn_degrees": float(np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))),
        "focal": float(camera.params[0] / longer),
    }


def refine(model: Any) -> None:
    """A last bundle adjustment of all cameras, points and the focal length with a robust loss (Cauchy's)."""
    import pycolmap

    options = pycolmap.BundleAdjustmentOptions()
    options.print_summary, options.refine_principal_point = False, False
    options.ceres.solver_options.num_threads = 1
    options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
    options.ceres.loss_function_scale = _ROBUST
    pycolmap.bundle_adjustment(model, options)
    model.update_point_3d_errors()


def combine(
    results: Sequence[dict[str, Any]], sections: Sequence[Section], names: Sequence[str], size: tuple[int, int]
) -> SelfCalibration | str:
    """The estimate from the sections' reconstructions, or a line that says why there is none.

    Args:
        results: of `reconstruct`, for each section.
        names: of the sections' inputs.
        size: (width, height) of the inputs.
    """
    longer = max(size)
    entries, problems = [], []
    for result, section, name in zip(results, sections, names, strict=True):
        judged = judge(result)
        if isinstance(judged, str):
            problems.append(judged)
            continue
        entry = {"input": name, "frames": [section.frames[0], section.frames[-1]], "images": result["images"]}
        entries.append(entry | judged | {"focal": judged["focal"] * longer})
    if not entries:
        return "; ".join(dict.fromkeys(problems))
    focals = np.array([entry["focal"] for entry in entries])
    focal = float(np.median(focals))
    spread = float(np.ptp(focals) / focal)
    if spread > LARGEST_SPREAD:
        shown = ", ".join(f"{one:.0f}" for one in focals)
        return f"the sections disagree: {shown} pixels"
    record = {
        "source": SELF_CALIBRATION,
        "focal": focal,
        "size": list(size),
        "images": sum(entry["registered"] for entry in entries),
        "points": sum(entry["points"] for entry in entries),
        "reprojection_error": float(np.mean([entry["reprojection_error"] for entry in entries])),
        "turn_degrees": max(entry["turn_degrees"] for entry in entries),
        "spread": spread if len(entries) > 1 else None,
        "sections": entries,
        "refused": problems,
    }
    return SelfCalibration(focal, record)


def agree(runs: Sequence[dict[str, Any]], images: int) -> bool:
    """Whether all runs have registered enough images and lead to one focal length."""
    focals = [run["focal"] for run in runs]
    whole = all(run["registered"] >= max(FEWEST_REGISTERED, LEAST_REGISTERED * images) for run in runs)
    return whole and max(focals) - min(focals) <= _AGREE * min(focals)


def judge(result: dict[str, Any]) -> dict[str, Any] | str:
    """The run of a section's `reconstruct` that counts, or why the section does not tell the focal length."""
    if "problem" in result:
        return str(result["problem"])
    needed = max(FEWEST_REGISTERED, LEAST_REGISTERED * result["images"])
    most = max((run["registered"] for run in result["runs"]), default=0)
    runs = [run for run in result["runs"] if run["registered"] >= needed]
    if not runs:
        return f"only {most} of {result['images']} images fit one reconstruction"
    best = min(runs, key=lambda run: run["reprojection_error"])
    if best["turn_degrees"] < LEAST_TURN_DEGREES:
        return f"the camera turns by {best['turn_degrees']:.0f} degrees only"
    if best["reprojection_error"] > LARGEST_ERROR:
        return f"the reprojection error is {best['reprojection_error']:.3g} pixels"
    if not focal_over_longer(LARGEST_ANGLE) <= best["focal"] <= focal_over_longer(LEAST_ANGLE):
        return f"a focal length of {best['focal']:.2f} times the longer side is absurd"
    rivals = [run for run in runs if run["reprojection_error"] <= RIVAL_ERROR * best["reprojection_error"]]
    focals = [run["focal"] for run in rivals]
    if max(focals) - min(focals) > LARGEST_SPREAD * best["focal"]:
        return f"several focal lengths fit: {min(focals):.2f} to {max(focals):.2f} times the longer side"
    return best


def focal_over_longer(angle: float) -> float:
    """The focal length over the longer side that has this field of view in degrees. Example: 90 degrees have 0.5."""
    return focal_length(angle, 1)
