"""What part of a clip's pictures is predicted: all, what the training's images showed, or without given margins."""

from typing import Any

from tqdm import tqdm

from datasets.input_views import InputView, input_view
from datasets.preparation.still_borders import Borders, borders_of
from datasets.preparation.video_inputs import plain_name
from files.errors import InputError
from inference.frames import Clip, Crop, crop_clip
from models.checkpoint import LoadedModel

TRAINING, AUTO, NONE = "training", "auto", "none"
_SAME_VIEW = 0.03  # share of a side by which the edges of one view may differ


def apply_crop(clip: Clip, choice: str | tuple[int, int, int, int], loaded: LoadedModel) -> None:
    """Crop a clip as `--crop` says, and note what a user should know about it.

    A network has learned depth of one part of the picture: the row and the size of a thing tell its distance. So
    TRAINING, the default, repeats the crop of the training's preparation, where the checkpoint knows it for pictures
    of this input or of its size. Another crop than that is noted.

    Args:
        choice: TRAINING, AUTO, NONE, or pixels at the left, top, right and bottom of the whole pictures.

    Raises:
        InputError: too little is left, or the pictures have several sizes.
    """
    view = find_view(clip, loaded)
    if choice == TRAINING and isinstance(view, str):
        clip.notes.append(view)
    trained = _margins(view, clip.size) if isinstance(view, InputView) else None
    crop = None
    if isinstance(choice, tuple):
        crop = Crop(choice, clip.size, f"--crop {','.join(map(str, choice))}")
    elif choice == AUTO and clip.part and not clip.ordered:
        clip.notes.append("--crop auto: this part has one frame, which shows no borders; nothing is cropped")
    elif choice == AUTO:
        borders = find_borders(clip)
        if not any(borders.margins):
            clip.notes.append(f"--crop auto: {borders}")
        crop = Crop(borders.margins, clip.size, f"--crop auto: {borders}")
    elif choice == TRAINING and trained is not None:
        crop = Crop(trained, clip.size, "as the images of the training; --crop none takes all")
    if trained is not None and choice != TRAINING:
        _note_other_view(clip, crop.margins if crop is not None else (0, 0, 0, 0), trained)
    if crop is not None and any(crop.margins):
        crop_clip(clip, crop)
        clip.notes.append(f"crop: {crop}")


def find_view(clip: Clip, loaded: LoadedModel) -> InputView | str | None:
    """What part of such pictures the images of a checkpoint's training show.

    That of the input of the clip's name and size, else of all inputs of its size. A line where these differ. None
    where the checkpoint knows none, and of prepared scenes, whose images show it already.
    """
    if clip.prepared or clip.several_sizes:
        return None
    height, width = clip.whole
    views = [view for view in map(input_view, loaded.views or []) if view is not None and view.size == (width, height)]
    own = [view for view in views if view.name == plain_name(clip.source)]
    views = own or views
    boxes = sorted({view.box for view in views})
    if len(boxes) < 2:
        return views[0] if views else None
    shown = " or ".join(",".join(map(str, _margins(view, clip.whole))) for view in views[:2])
    return (
        f"the training cropped pictures of {width} x {height} pixels in {len(boxes)} ways (such as {shown}): nothing "
        "is cropped here; --crop LEFT,TOP,RIGHT,BOTTOM does it"
    )


def find_borders(clip: Clip) -> Borders:
    """The borders of a clip that are the same in all frames: one pass over it."""
    if not clip.ordered:
        raise InputError(f"--crop auto: {clip.source}: single images; it looks at the frames of a clip")
    frames = tqdm(clip.read([]), total=clip.count, desc=f"{clip.name}: looking for borders", unit="image", leave=False)
    return borders_of((frame.image for frame in frames), clip.count or 0)


def _margins(view: InputView, size: tuple[int, int]) -> tuple[int, int, int, int]:
    left, top, right, bottom = view.box
    return left, top, size[1] - right, size[0] - bottom


def _note_other_view(clip: Clip, margins: Any, trained: Any) -> None:
    height, width = clip.size
    sides = zip(margins, trained, (width, height, width, height), strict=True)
    if any(abs(own - other) > _SAME_VIEW * side for own, other, side in sides):
        shown = ",".join(map(str, trained))
        clip.notes.append(
            f"the training's images show another part of such pictures (--crop {shown}), and depth of the part that "
            "is predicted here may be worse; without --crop the training's part is taken"
        )
