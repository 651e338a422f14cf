"""Time the rendering of the synthetic world: frames per second of one core, and what each part of a frame takes."""

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import imageio.v3 as iio
import torch
from path import Path
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import ArgumentParser, choose_device, positive_int, run_script

from datasets.synthetic import WorldOptions, list_drives, make_drive_renderer
from datasets.synthetic.sensors import LIDAR_AZIMUTHS, LIDAR_ELEVATIONS, camera_from_velodyne

DESCRIPTION = """\
Time the rendering of data/make_world.py on one core: pictures with 2 x 2 rays a pixel, exact depth, LiDAR scans.

Wall time is what a person waits; CPU time leaves out what other programs took of the core meanwhile.

  python benchmarks/render_world.py
  python benchmarks/render_world.py --width 1242 --height 375"""


def main() -> None:
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=positive_int, default=416, help="(default: 416)")
    parser.add_argument("--height", type=positive_int, default=128, help="(default: 128)")
    parser.add_argument("--frames", type=positive_int, default=20, help="of each of 3 drives (default: 20)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda, ... (default: cpu)")
    args = parser.parse_args()
    torch.set_num_threads(1)
    device = str(choose_device(args.device))
    options = WorldOptions(drives=3, frames=max(3, args.frames), width=args.width, height=args.height)
    options.check()

    times: dict[str, list[tuple[float, float]]] = {}

    def timed(part: str, work: Callable):
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        times.setdefault(part, []).append((time.perf_counter() - wall, time.process_time() - cpu))
        return result

    bar = tqdm(total=3 * args.frames, unit="frame", desc="rendering")
    with bar:
        for drive in list_drives(options):
            renderer = timed("a drive's scene and textures", lambda d=drive: make_drive_renderer(options, d, device))
            size = drive.intrinsics, args.height, args.width
            renderer.image(0, *size)  # what the first call alone costs
            for frame in range(args.frames):
                image = timed("picture", lambda r=renderer, f=frame, s=size: r.image(f, *s))
                timed("PNG", lambda i=image: iio.imwrite("<bytes>", i, extension=".png", compress_level=3))
                timed("exact depth", lambda r=renderer, f=frame, s=size: r.depth(f, *s))
                if frame % options.scan_every == 0:
                    pose = renderer.scene.world_from_camera[frame] @ camera_from_velodyne()
                    scan = pose, LIDAR_ELEVATIONS, LIDAR_AZIMUTHS
                    timed("LiDAR scan", lambda r=renderer, f=frame, s=scan: r.scan(f, *s))
                bar.update()

    print(f"{args.width} x {args.height}, 2 x 2 rays a pixel, 1 thread, {device}; milliseconds, median of all calls")
    print(f"{'':32}{'wall':>8}{'CPU':>8}")
    seconds = {}
    for part, calls in times.items():
        wall, cpu = (statistics.median(call[k] for call in calls) for k in (0, 1))
        seconds[part] = wall, cpu
        print(f"{part:32}{1000 * wall:8.1f}{1000 * cpu:8.1f}")
    frame_wall, frame_cpu = (seconds["picture"][k] + seconds["PNG"][k] for k in (0, 1))
    print(f"{'frames a second, PNG included':32}{1 / frame_wall:8.1f}{1 / frame_cpu:8.1f}")


if __name__ == "__main__":
    run_script(main)
