"""Which images a test has, and which tests: the lists of images, complete or not, and the combinations of protocols."""

from collections.abc import Collection

from path import Path

from datasets.formats.kitti_folders import find_image, read_image_list
from evaluation.depth_scoring import ImageSet, Sets
from evaluation.ground_truth import TRUTHS, archived_truths, is_archive, truth_files
from evaluation.metrics.depth import SCALINGS
from evaluation.metrics.depth_protocols import PROTOCOLS, DepthTest, matrix, name_tests, vary
from files.errors import InputError

SPLITS = Path(__file__).absolute().parent.parent / "data/splits"
LISTS = {"eigen": SPLITS / "eigen_test_files.txt", "benchmark": SPLITS / "eigen_benchmark_test_files.txt"}


def choose_tests(
    protocols: list[str],
    parts: dict[str, list],
    root: Path,
    with_images: bool,
    allow_missing: bool,
    predicted: Collection[str] | None = None,
) -> tuple[dict[str, DepthTest], Sets, list[str]]:
    """The tests, the images of each, and the parts of the matrix that the files do not allow.

    Args:
        protocols: names of `PROTOCOLS`, or "all" for every combination that the files allow.
        parts: values that replace those of the protocols, by `images`, `ground_truth`, `crop`, `cap`, `scaling` and
            `resized`; empty lists replace nothing.
        root: the folder that the images' names are relative to.
        with_images: the images themselves are needed, since they are to be predicted.
        allow_missing: go on with an incomplete list.
        predicted: the images that a file of predictions holds, where a list may lack the others; None: all of them.

    Returns:
        Tests by name; images by list and ground truth; a line for each part that was left out.

    Raises:
        InputError: a list that was named is not complete.
    """
    tests = vary([PROTOCOLS[name] for name in protocols if name != "all"], **parts)
    sets = {
        (test.images, test.ground_truth): find_images(test.images, test.ground_truth, root, with_images, predicted)
        for test in tests
    }
    for (images, truth), found in sets.items():
        check_complete(found, images, truth, allow_missing)
    left_out = []
    if "all" in protocols:
        for images in parts["images"] or LISTS:
            for truth in parts["ground_truth"] or all_kinds(root):
                found = find_images(images, truth, root, with_images, predicted)
                if not found.missing or (allow_missing and found.found):
                    sets[images, truth] = found
                else:
                    left_out.append(
                        f"{images}, {truth}: {len(found.missing)} of {len(found.listed)} images lack a file, e.g. "
                        f"{found.missing[0]}"
                    )
        if not sets:
            raise InputError(f"--protocol all: no list is complete with any ground truth: {left_out[0]}")
        named = [test for test in vary(PROTOCOLS.values(), **parts) if (test.images, test.ground_truth) in sets]
        every = vary(matrix(sets, list(SCALINGS)), **parts)
        tests = list(dict.fromkeys([*tests, *named, *every]))
    return name_tests(tests), sets, left_out


def all_kinds(root: Path) -> list[str]:
    """The kinds of ground truth that may be there. Pictures of depth are a synthetic world's or KITTI's, never both."""
    other = "improved" if (root.absolute().parent / "world.json").is_file() else "dense"
    return [kind for kind in TRUTHS if kind != other]


def find_images(
    images: str, truth: str, root: Path, with_images: bool, predicted: Collection[str] | None = None
) -> ImageSet:
    """The images of a list whose files are all there.

    Args:
        images: a name in `LISTS`, or a file.
        truth: kind of ground truth, or a file with the depth maps of the whole list.
        root, with_images, predicted: as in `choose_tests`.

    Raises:
        InputError: a file of depth maps that has another number of them than the list has images.
    """
    file = LISTS.get(images, Path(images))
    listed = read_image_list(file, root)
    if is_archive(truth) and Path(truth).is_file():
        # Before anything else: maps are found by their place in the list, so a missing image must not hide a misfit.
        count = len(archived_truths(Path(truth)))
        if count != len(listed):
            raise InputError(
                f"{truth}: {count} depth maps, expected one for each of the {len(listed)} images of {file}"
            )
    # Predictions of none of the images are those of another list, which is an error of its own.
    unpredicted = set(listed) - set(predicted) if predicted and not set(listed).isdisjoint(predicted) else set()
    found, missing = [], []
    for name in listed:
        needed = [find_image(root, name)] if with_images or name in unpredicted else []
        needed += truth_files(root, name, truth)
        absent = next((file for file in needed if not file.is_file()), None)
        if absent is None and name in unpredicted:  # all files are there now
            missing.append(f"prediction of {name}")
        elif absent is None:
            found.append(name)
        else:
            missing.append(str(absent))
    return ImageSet(str(file.name), listed, found, missing)


def check_complete(images: ImageSet, listed: str, truth: str, allow_missing: bool) -> None:
    """InputError for a list that is not complete, unless that is allowed."""
    if not images.missing or (allow_missing and images.found):
        return
    hint = "; --allow-missing scores the others" if images.found else ""
    if truth == "improved" and listed == "eigen":
        hint += "; --list benchmark names the 652 that have an improved depth map"
    raise InputError(
        f"{images.missing[0]}: no such file; of the {len(images.listed)} images of {LISTS.get(listed, listed)}, "
        f"{len(images.missing)} lack their image, ground truth or calibration{hint}"
    )
