import numpy as np
from path import Path
from PIL import Image, PngImagePlugin

from datasets.preparation.repeated_frames import find_repeated_frames

RANDOM = np.random.default_rng(0)
PICTURES = RANDOM.integers(0, 255, (4, 16, 16, 3), dtype=np.uint8)


def write(folder, *numbers, **options):
    """Frames 0000000.png, ...: the pictures of these numbers."""
    files = []
    for frame, number in enumerate(numbers):
        files.append(Path(folder) / f"{frame:07d}.png")
        Image.fromarray(PICTURES[number]).save(files[-1], **options)
    return files


def test_each_copy_of_the_frame_before_it_counts(tmp_path):
    assert find_repeated_frames(write(tmp_path, 0, 0, 1, 2, 2, 2, 3, 0)) == [1, 4, 5]
    assert find_repeated_frames(write(tmp_path, 0, 1, 0, 1)) == []


def test_copies_are_equal_in_their_pixels_whatever_the_file_says_of_its_time(tmp_path):
    files = write(tmp_path, 0, 0)
    for second, file in enumerate(files):
        note = PngImagePlugin.PngInfo()
        note.add_text("date", f"2026-01-01 00:00:0{second}")
        Image.fromarray(PICTURES[0]).save(file, pnginfo=note)
    assert files[0].read_bytes() != files[1].read_bytes()
    assert find_repeated_frames(files) == [1]


def test_files_of_equal_size_are_no_copies_unless_their_pixels_are(tmp_path):
    files = write(tmp_path, 0, 1, compress_level=0)
    assert files[0].size == files[1].size
    assert find_repeated_frames(files) == []


def test_two_suffixes_of_one_name_are_one_frame(tmp_path):
    (file,) = write(tmp_path, 0)
    other = file.with_suffix(".jpg")
    Image.fromarray(PICTURES[0]).save(other, quality=50)
    assert find_repeated_frames([other, file]) == [1]


def test_what_cannot_be_read_repeats_nothing(tmp_path):
    files = write(tmp_path, 0, 0, 1, 1)
    files[0].write_bytes(b"")
    files[1].write_bytes(b"")
    files[2].remove()
    files[2].symlink_to("nowhere")
    assert find_repeated_frames(files) == []
