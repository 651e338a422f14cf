"""Image files: reading as uint8 RGB, resizing by area averaging, writing as JPEG, and the networks' input."""

import io
import re
import zlib
from functools import lru_cache

import cv2
import numpy as np
from path import Path
from PIL import ExifTags, Image, ImageOps
from scipy import sparse

from files.atomic import write_bytes
from files.errors import InputError
from files.untrusted import MOST_PIXELS, check_pixels, one_line, read_bounded

JPEG_QUALITY = 95
# An image of one colour has fewer pixels per byte than this in both formats. A header that claims more is damaged, and
# decoding the image would take the memory that it claims.
_MOST_PIXELS_PER_BYTE = 1100
_LARGEST_FILE = 256 * 2**20  # bytes
# A JPEG marker that begins a segment or ends the image; ff00 and ffd0 to ffd7 belong to the compressed pixels.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd7]")
_PLAIN_HEADERS = (bytes([8, 0, 0, 0, 0]), bytes([8, 2, 0, 0, 0]))  # 8 bits, grey or RGB, not interlaced
_PLAIN_CHUNKS = {b"IHDR", b"IDAT", b"IEND", b"pHYs", b"tIME"}  # none of them changes what the pixels mean
_PNG_END = b"\0\0\0\0IEND\xaeB`\x82"  # a chunk without content


def read_image(file: Path) -> np.ndarray:
    """A JPEG or PNG as RGB: uint8 [H, W, 3].

    Grey becomes three equal channels, transparency is dropped, 16 bits become 8, and the EXIF orientation is applied.
    Bytes behind the image's end are ignored.

    Raises:
        InputError: missing, truncated or damaged, no JPEG or PNG, or of more than `files.untrusted.MOST_PIXELS`.
    """
    return decode_image(read_bounded(file, _LARGEST_FILE, "an image"), file)


def decode_image(data: bytes, file: Path) -> np.ndarray:
    """The content of an image file as RGB, as `read_image` has it; `file` is named in the error."""
    # Pillow is used because torchvision.io is at most 10 % faster, crashes the process on some damaged PNGs, and is
    # deprecated since torchvision 0.29. OpenCV decodes plain PNGs in a sixth less time.
    kind = _kind(data, file)
    try:
        if kind == "PNG" and (plain := _decode_plain_png(data)) is not None:
            return plain
        image = _open_whole(data, kind)
        if image.mode.startswith("I"):  # 16-bit grey, which Pillow would clip to 255
            grey = (np.asarray(image).astype(np.uint32) * 255 + 32767) // 65535
            return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)
        ImageOps.exif_transpose(image, in_place=True)
        return np.array(image if image.mode == "RGB" else image.convert("RGB"))
    except Exception as error:  # a decoder may fail on damage in any way
        raise _damaged(file, kind, error) from None


def read_depth_picture(file: Path) -> np.ndarray:
    """A depth map in KITTI's format, a grey PNG of 16 bits: float32 [H, W] in metres = number / 256, 0 = unknown.

    Raises:
        InputError: missing, truncated or damaged, or another kind of image (8 bits, colour).
    """
    data = read_bounded(file, _LARGEST_FILE, "an image")
    kind = _kind(data, file)
    if kind != "PNG":
        raise InputError(f"{file}: {kind}, expected a depth map as a PNG of 16 bits")
    try:
        image = _open_whole(data, kind)
        numbers = np.asarray(image)
    except Exception as error:
        raise _damaged(file, kind, error) from None
    if not image.mode.startswith("I"):
        raise InputError(f"{file}: a PNG of mode {image.mode}, expected a depth map: grey, 16 bits")
    return numbers.astype(np.float32) / 256


def _kind(data: bytes, file: Path) -> str:
    """ "JPEG" or "PNG", by the first bytes of an image file."""
    if data.startswith(b"\xff\xd8\xff"):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    found = f"begins with {data[:4].hex(' ')}" if data else "empty file"
    raise InputError(f"{file}: {found}, expected a JPEG or PNG image")


def _damaged(file: Path, kind: str, error: Exception) -> InputError:
    return InputError(f"{file}: truncated or damaged {kind} ({one_line(error)})")


def image_size(file: Path) -> tuple[int, int]:
    """(height, width) of a JPEG or PNG from its header alone; InputError if it has none."""
    try:
        with Image.open(file, formats=("JPEG", "PNG")) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) >= 5
            return (image.width, image.height) if turned else (image.height, image.width)
    except Exception as error:  # a decoder may fail on damage in any way
        raise InputError(f"{file}: no JPEG or PNG header ({type(error).__name__})") from None


def _open_whole(data: bytes, kind: str) -> Image.Image:
    """The decoded image of a JPEG or PNG file. Bytes behind its end are left out; a phone stores a video there."""
    # Pillow alone would paint a JPEG's tail of zeros grey, and not look at a PNG's checksums.
    data = data[: _jpeg_end(data) if kind == "JPEG" else _png_end(data)]
    image = Image.open(io.BytesIO(data), formats=(kind,))
    check_pixels(image.width, image.height)
    if image.width * image.height > _MOST_PIXELS_PER_BYTE * len(data):
        raise ValueError(f"claims {image.width} x {image.height} pixels in {len(data)} bytes")
    if kind == "PNG":
        image.verify()
        image = Image.open(io.BytesIO(data), formats=(kind,))  # verify() leaves nothing to load from
    image.load()
    return image


def _jpeg_end(data: bytes) -> int:
    """The position behind a JPEG's end marker; ValueError if there is none.

    Segments are skipped by their length: a thumbnail within one has an end marker of its own.
    """
    position = 2
    while marker := _JPEG_MARKER.search(data, position):
        position = marker.end()
        if marker[0] == b"\xff\xd9":
            return position
        if marker[0] == b"\xff\xd8":
            raise ValueError("another image begins before its end")
        position += int.from_bytes(data[position : position + 2])  # the length counts its own 2 bytes
    raise ValueError("the image data have no end")


def _png_end(data: bytes) -> int:
    """The position behind a PNG's last chunk; ValueError if it is missing."""
    position = 8
    while data[position + 4 : position + 8].isalpha():
        if data[position : position + len(_PNG_END)] == _PNG_END:
            return position + len(_PNG_END)
        position += 12 + int.from_bytes(data[position : position + 4])  # with its length, name and checksum
    raise ValueError("the image data have no end")


def _decode_plain_png(data: bytes) -> np.ndarray | None:
    """A plain PNG (8 bits, grey or RGB, with its checksums), decoded by OpenCV; None for what Pillow has to look at.

    OpenCV's libpng prints on the terminal what it finds wrong, so it gets nothing that is damaged.
    """
    position, kinds = 8, set()
    while position + 12 <= len(data) and b"IEND" not in kinds:
        end = position + 8 + int.from_bytes(data[position : position + 4])
        if zlib.crc32(memoryview(data)[position + 4 : end]) != int.from_bytes(data[end : end + 4]):
            return None
        kinds.add(data[position + 4 : position + 8])
        position = end + 4
    if not {b"IHDR", b"IDAT", b"IEND"} <= kinds <= _PLAIN_CHUNKS or data[24:29] not in _PLAIN_HEADERS:
        return None
    width, height = int.from_bytes(data[16:20]), int.from_bytes(data[20:24])
    if not 1 <= width * height <= min(MOST_PIXELS, _MOST_PIXELS_PER_BYTE * position):
        return None
    image = cv2.imdecode(np.frombuffer(data, np.uint8, position), cv2.IMREAD_COLOR_RGB)
    return image if image is not None and image.shape == (height, width, 3) else None


def resize_area(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize an image by area averaging (anti-aliased).

    A pixel covers [i - 0.5, i + 0.5] around its integer centre, so that x' = (x + 0.5) s - 0.5. Along an axis that gets
    shorter, each new pixel is the mean of the area that it covers; pixels at the border of that area count by their
    covered fraction. Along an axis that gets longer, values are interpolated linearly between pixel centres. An image
    that has the size already is returned itself.

    Args:
        image: [H, W] or [H, W, C], uint8 or floating point.

    Returns:
        [height, width] or [height, width, C]; uint8 is rounded to uint8, anything else becomes float32.
        Example: a row (0, 4, 8, 12) at half the width is (2, 10).
    """
    if image.ndim not in (2, 3) or image.size == 0 or height < 1 or width < 1:
        raise ValueError(f"image: got shape {list(image.shape)} to {height} x {width}, expected [H, W] or [H, W, C]")
    if image.shape[:2] == (height, width):
        return image
    channels = image.shape[2] if image.ndim == 3 else 1
    values = image if image.dtype == np.uint8 else image.astype(np.float32)
    # Rows first, then columns: two sparse products, the second with each weight repeated for the channels.
    rows = _axis_weights(image.shape[0], height, 1) @ values.reshape(image.shape[0], -1)
    columns = cv2.transpose(rows)  # in a third less time than NumPy
    both = (_axis_weights(image.shape[1], width, channels) @ columns).T.reshape(height, width, *image.shape[2:])
    return np.rint(both).astype(np.uint8) if image.dtype == np.uint8 else np.ascontiguousarray(both)


@lru_cache(maxsize=32)
def _axis_weights(old: int, new: int, channels: int) -> sparse.csr_array:
    """Sparse [new * channels, old * channels] matrix that resizes one axis; each row sums to 1."""
    if new < old:
        edges = np.arange(new + 1) * (old / new)  # in old pixels, which cover [i, i + 1]
        first = np.floor(edges[:-1] + 1e-9).astype(int)
        covered = first[:, None] + np.arange(int(np.ceil(old / new)) + 1)
        weights = np.minimum(covered + 1, edges[1:, None]) - np.maximum(covered, edges[:-1, None])
        weights = np.where(covered < old, weights.clip(0), 0)
    else:
        centres = (np.arange(new) + 0.5) * (old / new) - 0.5
        first = np.floor(centres).astype(int)
        covered = np.stack([first, first + 1], 1)
        weights = np.stack([1 - (centres - first), centres - first], 1)
    weights = weights / weights.sum(1, keepdims=True)
    rows = np.repeat(np.arange(new), covered.shape[1])
    matrix = sparse.coo_array((weights.ravel(), (rows, covered.clip(0, old - 1).ravel())), shape=(new, old)).tocsr()
    matrix.eliminate_zeros()
    return sparse.kron(matrix, sparse.eye_array(channels)).astype(np.float32).tocsr()


def write_jpeg(file: Path, image: np.ndarray) -> None:
    """Write uint8 [H, W, 3] as JPEG of quality 95: whole under its name, or not at all."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"image: got {image.dtype} {list(image.shape)}, expected uint8 [H, W, 3]")
    content = io.BytesIO()  # Pillow's JPEG encoder writes into a file itself, and takes half a block for a whole one
    Image.fromarray(image).save(content, format="JPEG", quality=JPEG_QUALITY)
    write_bytes(file, content.getvalue())
