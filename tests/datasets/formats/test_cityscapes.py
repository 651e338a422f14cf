import os

import pytest
from path import Path

from datasets.formats.cityscapes import find_sequences
from files.errors import InputError


@pytest.fixture
def root(tmp_path):
    """A sequence of frames 0 to 29 of one city, and a file of macOS beside the city."""
    root = Path(tmp_path)
    images = (root / "leftImg8bit_sequence/train/aachen").makedirs_p()
    for frame in range(30):
        (images / f"aachen_000000_{frame:06d}_leftImg8bit.png").touch()
    camera = (root / "camera/train/aachen").makedirs_p()
    (camera / "aachen_000000_000019_camera.json").touch()
    (images.parent / ".DS_Store").touch()
    (images / "._aachen_000000_000003_leftImg8bit.png").touch()
    return root


def test_a_sequence_is_19_frames_before_and_10_after_the_annotated_one(root):
    images = root / "leftImg8bit_sequence/train/aachen"
    (images / "aachen_000000_000030_leftImg8bit.png").touch()
    (sequence,), surplus = find_sequences(root, ("train",))
    assert (sequence.name, sequence.first, list(sequence.images), surplus) == (
        "aachen_000000_000019",
        0,
        list(range(30)),
        1,
    )


@pytest.mark.parametrize("suffix", ["jpg", "jpeg"])
def test_images_converted_to_jpeg(root, suffix):
    for file in (root / "leftImg8bit_sequence/train/aachen").files("aachen*"):
        file.move(file.with_suffix(f".{suffix}"))
    (sequence,), _ = find_sequences(root, ("train",))
    assert list(sequence.images) == list(range(30))


def test_what_cannot_be_opened_is_found_or_refused(root):
    image = root / "leftImg8bit_sequence/train/aachen/aachen_000000_000003_leftImg8bit.png"
    image.remove()
    os.symlink("nowhere.png", image)
    (sequence,), _ = find_sequences(root, ("train",))
    assert sequence.images[3] == image  # reading it will name it
    os.symlink("/nowhere", root / "leftImg8bit_sequence/train/bochum")
    with pytest.raises(InputError, match="train/bochum: cannot be opened as a folder"):
        find_sequences(root, ("train",))
