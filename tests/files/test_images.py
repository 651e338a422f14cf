"""Every kind of image is read as RGB, damage is an error, and resizing averages areas."""

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from path import Path
from PIL import Image

from files import images
from files.errors import InputError, WriteError
from files.images import read_image, resize_area, write_jpeg

ROOT = Path(__file__).absolute().parent.parent.parent


def picture(height=48, width=64, seed=0):
    """A smooth image with some noise: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    smooth = np.stack([128 + 90 * np.sin(x / 9), 128 + 90 * np.cos(y / 7), 128 + 90 * np.sin((x + y) / 11)], -1)
    return (smooth + rng.normal(0, 4, smooth.shape)).clip(0, 255).astype(np.uint8)


def encoded(image, kind):
    stream = io.BytesIO()
    Image.fromarray(image).save(stream, kind, **({"quality": 95} if kind == "JPEG" else {}))
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    return Path(tmp_path)


def saved(folder, image, name="image.png", **options):
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(folder / name, **options)
    return folder / name


# Kinds of images


def test_rgb_png_comes_back_exactly(folder):
    image = picture()
    read = read_image(saved(folder, image))
    assert read.dtype == np.uint8
    assert read.flags.writeable
    np.testing.assert_array_equal(read, image)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "1"])
def test_other_kinds_of_png_become_rgb(folder, mode):
    image = Image.fromarray(picture())
    if mode == "RGBA":
        image.putalpha(100)  # transparency is dropped, not blended
        expected = picture()
    else:
        image = image.convert(mode)
        expected = np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read_image(saved(folder, image)), expected)


def test_16_bit_grey_png_becomes_8_bit(folder):
    deep = np.linspace(0, 65535, 48 * 64).astype(np.uint16).reshape(48, 64)
    read = read_image(saved(folder, deep))
    np.testing.assert_array_equal(read[..., 0], np.rint(deep / 257).astype(np.uint8))
    np.testing.assert_array_equal(read[..., 0], read[..., 2])


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_becomes_rgb(folder, mode, progressive):
    image = Image.fromarray(picture()).convert(mode)
    file = saved(folder, image, "image.jpg", quality=95, progressive=progressive)
    read = read_image(file)
    expected = np.asarray(image.convert("RGB")).astype(int)
    assert read.shape == (48, 64, 3)
    assert np.abs(read - expected).mean() < 5


def test_orientation_tag_of_a_phone_is_obeyed(folder):
    image = np.zeros((32, 64, 3), np.uint8)
    image[:, :32] = 200  # bright on the left
    tags = Image.Exif()
    tags[0x0112] = 6  # "turn a quarter clockwise to see it upright"
    for name in ("turned.jpg", "turned.png"):
        read = read_image(saved(folder, image, name, exif=tags))
        assert read.shape == (64, 32, 3)
        assert read[:28].min() > 150
        assert read[36:].max() < 50


# Damage


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "empty file"), (b"text, not an image", "expected a JPEG or PNG"), (b"\xff\xd8\xff\xe0", "damaged JPEG")],
)
def test_no_image_is_named(folder, content, message):
    (folder / "frame.jpg").write_bytes(content)
    with pytest.raises(InputError, match=f"frame.jpg: .*{message}"):
        read_image(folder / "frame.jpg")


def test_missing_file_is_named(folder):
    with pytest.raises(InputError, match=r"missing\.jpg: no such file"):
        read_image(folder / "missing.jpg")
    with pytest.raises(InputError, match="no such file"):
        read_image(folder)


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_truncation_is_an_error_wherever_it_falls(folder, kind):
    data = encoded(picture(), kind)
    file = folder / "frame"
    for length in [*range(4, len(data), 37), *range(len(data) - 14, len(data))]:
        file.write_bytes(data[:length])
        with pytest.raises(InputError):
            read_image(file)
        file.write_bytes(data[:length].ljust(len(data), b"\0"))  # as a power failure leaves it
        if data[length:] != bytes(len(data) - length):
            with pytest.raises(InputError):
                read_image(file)


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "MPO", "PNG"])
@pytest.mark.parametrize(
    "behind", [b"\0", b"\0" * 5000, b"....ftypmp42\xff\xda\xff\xd8 IDAT", "again"], ids=["0", "zeros", "video", "again"]
)
def test_bytes_behind_the_end_do_not_matter(folder, kind, behind):
    """A motion photo of a phone has a video there, and a panorama further images."""
    stream = io.BytesIO()
    options = {
        "JPEG": {"format": "JPEG"},
        "progressive": {"format": "JPEG", "progressive": True},
        "MPO": {"format": "MPO", "save_all": True, "append_images": [Image.fromarray(picture(seed=1))]},
        "PNG": {"format": "PNG"},
    }
    Image.fromarray(picture()).save(stream, **options[kind])
    data = stream.getvalue()
    (folder / "frame").write_bytes(data)
    expected = read_image(folder / "frame")
    (folder / "frame").write_bytes(data + (data if behind == "again" else behind))
    np.testing.assert_array_equal(read_image(folder / "frame"), expected)
    assert np.abs(expected.astype(int) - picture()).mean() < 10


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_a_truncated_image_before_a_whole_one_is_truncated(folder, kind):
    data = encoded(picture(), kind)
    pixels = data.index(b"\xff\xda" if kind == "JPEG" else b"IDAT") + 20
    for length in range(pixels, len(data), 97):
        (folder / "frame").write_bytes(data[:length] + data)
        with pytest.raises(InputError):
            read_image(folder / "frame")


def test_a_truncated_image_with_a_whole_thumbnail_is_truncated(folder):
    tags = Image.Exif()
    tags[0x927C] = encoded(picture(16, 24), "JPEG")
    data = (saved(folder, picture(), "whole.jpg", exif=tags)).read_bytes()
    assert data.count(b"\xff\xd9") == 2
    assert read_image(folder / "whole.jpg").shape == (48, 64, 3)
    (folder / "frame.jpg").write_bytes(data[:-2])
    with pytest.raises(InputError, match="no end"):
        read_image(folder / "frame.jpg")


def test_png_with_one_damaged_byte_is_an_error(folder):
    data = bytearray(encoded(picture(), "PNG"))
    for position in range(8, len(data), 101):
        damaged = data.copy()
        damaged[position] ^= 16
        (folder / "frame.png").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged PNG"):
            read_image(folder / "frame.png")


@pytest.mark.parametrize("progressive", [False, True])
def test_size_that_only_a_damaged_header_claims_is_refused(folder, progressive):
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", progressive=progressive)
    data = bytearray(stream.getvalue())
    at = data.index(b"\xff\xc2" if progressive else b"\xff\xc0")
    data[at + 5 : at + 9] = b"\xff\xff\xff\xff"
    (folder / "huge.jpg").write_bytes(data)
    with pytest.raises(InputError, match="damaged JPEG"):
        read_image(folder / "huge.jpg")


def test_a_file_too_large_for_an_image_is_not_read(folder):
    with open(folder / "huge.png", "wb") as stream:
        stream.truncate(1 << 40)  # sparse: it takes no space on the disk
    with pytest.raises(InputError, match="1048576 MiB, expected an image of at most"):
        read_image(folder / "huge.png")


def test_an_image_of_one_colour_is_no_damage(folder):
    image = np.full((375, 1242, 3), 90, np.uint8)
    for name in ("plain.png", "plain.jpg"):
        assert np.abs(read_image(saved(folder, image, name)).astype(int) - 90).max() <= 1


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(["JPEG", "PNG"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=40))
def test_damage_gives_an_image_or_our_own_error(tmp_path_factory, kind, position, junk):
    data = bytearray(encoded(picture(16, 24), kind))
    position %= len(data)
    data[position : position + len(junk)] = junk
    file = Path(tmp_path_factory.getbasetemp()) / "fuzzed"
    file.write_bytes(data)
    try:
        image = read_image(file)
    except InputError as error:
        assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert image.ndim == 3


# Size


def test_integer_ratio_is_the_mean_of_the_block():
    image = np.random.default_rng(0).random((12, 20, 3)).astype(np.float32)
    expected = image.reshape(4, 3, 5, 4, 3).mean((1, 3))
    np.testing.assert_allclose(resize_area(image, 4, 5), expected, atol=1e-6)


def test_bytes_are_rounded_to_the_nearest():
    image = np.array([[0, 1, 3, 4], [1, 1, 4, 4]], np.uint8)[..., None].repeat(3, 2)
    np.testing.assert_array_equal(resize_area(image, 1, 2)[0, :, 0], [1, 4])  # 0.75 and 3.75


@pytest.mark.parametrize("size", [(128, 416), (37, 101), (374, 1241), (1, 1)])
def test_mean_is_preserved(size):
    image = np.random.default_rng(1).random((375, 1242)).astype(np.float32)
    assert resize_area(image, *size).mean() == pytest.approx(image.mean(), abs=2e-6)


def test_fractions_of_pixels_count():
    # 3 pixels to 2: each new pixel covers one and a half.
    np.testing.assert_allclose(resize_area(np.array([[0.0, 3, 6]]), 1, 2), [[1, 5]], atol=1e-6)


@pytest.mark.parametrize("size", [(64, 96), (41, 67), (128, 128), (200, 300), (300, 50)])
def test_ramp_stays_the_ramp(size):
    height, width = 128, 192
    y, x = np.mgrid[:height, :width].astype(np.float32)
    new_y, new_x = np.mgrid[: size[0], : size[1]]
    for ramp, new, scale, old in ((x, new_x, size[1] / width, width), (y, new_y, size[0] / height, height)):
        resized = resize_area(ramp, *size)
        expected = ((new + 0.5) / scale - 0.5).clip(0, old - 1)
        # A pixel that an area covers in part is constant there, not a ramp: at most 1/8 of a pixel at either end.
        tolerance = 1e-4 if scale > 1 or (1 / scale).is_integer() else 0.25 * scale + 1e-4
        assert np.abs(resized - expected).max() <= tolerance


def test_checkerboard_goes_grey():
    y, x = np.mgrid[:120, :200]
    board = ((x + y) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    assert np.ptp(resize_area(board, 60, 100)) == 0
    # An area of 2.5 x 3 pixels has at most half a pixel more of one colour, 1 part in 15.
    assert np.abs(resize_area(board, 40, 80).astype(int) - 127.5).max() <= 0.5 + 255 / 2 / 15


def test_both_directions_at_once():
    image = np.random.default_rng(2).random((20, 30)).astype(np.float32)
    np.testing.assert_allclose(resize_area(image, 10, 60), resize_area(resize_area(image, 10, 30), 10, 60), atol=1e-6)


def test_same_size_is_the_image_itself():
    image = picture()
    assert resize_area(image, 48, 64) is image


def test_resizing_agrees_with_pixel_counting():
    # Brute force: every pixel repeated as often as the new size has pixels, then block means.
    image = picture(9, 14)
    brute = image.astype(float).repeat(5, 0).repeat(8, 1).reshape(5, 9, 8, 14, 3).mean((1, 3))
    np.testing.assert_allclose(resize_area(image.astype(np.float32), 5, 8), brute, atol=1e-4)


def test_wrong_shape_is_a_plain_error():
    with pytest.raises(ValueError, match="expected"):
        resize_area(np.zeros((2, 3, 4, 5)), 1, 1)


# Writing and the networks' range


def test_jpeg_is_written_whole_and_reads_back(folder):
    image = picture()
    write_jpeg(folder / "0000000.jpg", image)
    assert [file.name for file in folder.files()] == ["0000000.jpg"]
    assert np.abs(read_image(folder / "0000000.jpg").astype(int) - image).mean() < 4


def test_what_stood_there_stays_when_writing_fails(folder, monkeypatch):
    write_jpeg(folder / "0000000.jpg", picture(seed=1))
    before = (folder / "0000000.jpg").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("files.atomic.os.replace", full)
    with pytest.raises(WriteError, match=r"0000000\.jpg: could not be written \(No space left"):
        write_jpeg(folder / "0000000.jpg", picture(seed=2))
    assert (folder / "0000000.jpg").read_bytes() == before


def test_a_disk_that_gets_full_within_a_picture_leaves_no_truncated_one(folder):
    """The system then writes a part of the block without an error, which Pillow's JPEG encoder does not notice."""
    code = (
        "import resource, sys, numpy as np; from path import Path; from files.images import write_jpeg\n"
        "image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))\n"
        "write_jpeg(Path(sys.argv[1]), image)"
    )
    result = subprocess.run([sys.executable, "-c", code, folder / "0.jpg"], cwd=ROOT, capture_output=True, text=True)
    assert result.stderr.splitlines()[-1].endswith("0.jpg: could not be written (File too large)")
    assert folder.files() == []


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("level", [0, 9])
def test_plain_pngs_have_pillows_pixels(folder, mode, level):
    """OpenCV decodes them."""
    shape = (37, 53, 3) if mode == "RGB" else (37, 53)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for name, image in (("noise", pixels), ("smooth", np.sort(pixels, axis=1))):
        file = folder / f"{name}.png"
        Image.fromarray(image).save(file, compress_level=level)
        assert images._decode_plain_png(file.read_bytes()) is not None
        np.testing.assert_array_equal(read_image(file), np.asarray(Image.open(file).convert("RGB")))
        file.write_bytes(file.read_bytes() + b"a video")
        assert images._decode_plain_png(file.read_bytes()) is not None


def png_of(stream: bytes) -> bytes:
    """A PNG of 64 x 32 pixels with this stream of compressed rows, all checksums right."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 64, 32, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", stream) + chunk(b"IEND", b"")


ROWS = b"".join(b"\0" + bytes(range(192)) for _ in range(32))


@pytest.mark.parametrize(
    "stream",
    [
        zlib.compress(ROWS)[:-30],
        zlib.compress(ROWS)[:-1] + b"x",
        zlib.compress(b"\x09" + ROWS[1:]),
        b"",
        b"no stream",
    ],
)
def test_a_png_whose_stream_is_damaged_below_right_checksums_is_an_error(folder, stream):
    (folder / "a.png").write_bytes(png_of(zlib.compress(ROWS)))
    assert read_image(folder / "a.png").shape == (32, 64, 3)
    (folder / "a.png").write_bytes(png_of(stream))
    with pytest.raises(InputError, match=r"a\.png: truncated or damaged PNG"):
        read_image(folder / "a.png")
