"""Time preparation on one core, beside what decoding, area resize and encoding alone take."""

import argparse
import contextlib
import io
import os
import resource
import statistics
import sys
import tempfile
import time

import cv2
import numpy as np
import torch
from path import Path
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, positive_int, run_script

from benchmarks.surroundings import device_name
from data import prepare_kitti
from files.errors import InputError
from files.images import JPEG_QUALITY
from files.memory import keep_freed_memory

DESCRIPTION = """\
Time data/prepare_kitti.py on one core, by processor time, beside the work that cannot be left out.

The bound is decoding (OpenCV), area resize (OpenCV) and encoding (Pillow) of the same images in memory, without files,
checks, processes or anything else. Preparation is the script with one process, all of its processor time counted. The
two are measured in turns.

  python benchmarks/preparation.py
  python benchmarks/preparation.py --images KITTI_RAW/DATE/DRIVE/image_02/data"""

DRIVE = "2011_09_26/2011_09_26_drive_0001_sync"
SIZE = 128, 416  # prepared height and width


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of PNGs of one size (default: 10 that are made)")
    parser.add_argument("--frames", type=positive_int, default=300, help="frames to prepare (default: 300)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds of both (default: 5)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    keep_freed_memory()
    with tempfile.TemporaryDirectory() as folder:
        images = make_drive(Path(folder), args.images, args.frames)
        pieces, speeds = [], []
        for number in tqdm(range(args.rounds), desc="rounds", leave=False):
            pieces.append(time_bound(images, args.frames))
            speeds.append(time_preparation(Path(folder), args.frames, number))
    print(f"{device_name(torch.device('cpu'))}; {len(images)} images of {len(images[0]) >> 10} KiB and alike")
    for name in pieces[0]:
        print(f"{name:34s}{1000 * statistics.median(piece[name] for piece in pieces):8.2f} ms a frame")
    bounds = [1 / sum(piece.values()) for piece in pieces]
    print(f"{'the three alone':34s}{statistics.median(bounds):8.1f} frames/s")
    print(f"{'preparation':34s}{statistics.median(speeds):8.1f} frames/s")
    ratios = [speed / bound for speed, bound in zip(speeds, bounds, strict=True)]
    print(f"{'preparation / the three alone':34s}{statistics.median(ratios):8.2f}")


def time_bound(images: list[bytes], frames: int) -> dict[str, float]:
    """Seconds of processor time a frame of each of the three."""
    seconds = dict.fromkeys(("decoding", "area resize", "encoding"), 0.0)
    for number in range(frames):
        times = [time.process_time()]
        image = cv2.imdecode(np.frombuffer(images[number % len(images)], np.uint8), cv2.IMREAD_COLOR)
        times.append(time.process_time())
        if image is None:
            raise InputError("an image cannot be decoded, expected PNGs")
        small = cv2.resize(image, SIZE[::-1], interpolation=cv2.INTER_AREA)
        times.append(time.process_time())
        Image.fromarray(small).save(io.BytesIO(), format="JPEG", quality=JPEG_QUALITY)
        times.append(time.process_time())
        for name, start, end in zip(seconds, times, times[1:], strict=False):
            seconds[name] += (end - start) / frames
    return seconds


def time_preparation(folder: Path, frames: int, number: int) -> float:
    """Frames per second of processor time that the script prepares, with one process."""
    arguments = [folder / "kitti", folder / f"prepared{number}", "--jobs", 1, "--static", "none", "--cameras", "02"]
    sys.argv = ["prepare_kitti.py", *map(str, arguments)]
    before = processor_seconds()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        prepare_kitti.main()
    return frames / (processor_seconds() - before)


def processor_seconds() -> float:
    """Processor time of this process and of its children that have ended."""
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in usage)


def make_drive(folder: Path, images: Path | None, frames: int) -> list[bytes]:
    """A drive of KITTI raw that repeats the given images, or ones that are made; the content of each of them."""
    if images is not None:
        contents = [file.read_bytes() for file in sorted(images.files("*.png"))[:10]]
        if not contents:
            raise InputError(f"{images}: no PNG, expected images of one size")
    else:
        contents = [make_png(number) for number in range(10)]
    drive = folder / "kitti" / DRIVE
    (drive / "image_02/data").makedirs()
    for number, content in enumerate(contents):
        (folder / f"{number}.png").write_bytes(content)
    for frame in range(frames):
        os.link(folder / f"{frame % len(contents)}.png", drive / f"image_02/data/{frame:010d}.png")
    width, height = Image.open(io.BytesIO(contents[0])).size
    projection = "721.5 0 609.6 44.9 0 721.5 172.9 0.2 0 0 1 0.003"
    (drive.parent / "calib_cam_to_cam.txt").write_text(
        f"R_rect_00: 1 0 0 0 1 0 0 0 1\nS_rect_02: {width} {height}\nP_rect_02: {projection}\n"
    )
    return contents


def make_png(number: int) -> bytes:
    """A PNG of KITTI's size, smooth with some noise, which takes about as many bytes as KITTI's."""
    random = np.random.default_rng(number)
    coarse = random.integers(0, 256, (48, 156, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((1242, 375), Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = smooth + random.normal(0, 1, smooth.shape)
    stream = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(stream, format="PNG")
    return stream.getvalue()


if __name__ == "__main__":
    run_script(main)
