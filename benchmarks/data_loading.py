"""Time the loader: samples per second and worker, beside bare decoding of the same files."""

import argparse
import resource
import statistics
import sys
import tempfile
import time

import torch
from path import Path

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from benchmarks.surroundings import device_name, make_noise
from cli.flags import positive_int, run_script
from datasets.loading import ShuffledBatches, load_batches
from datasets.snippets import SnippetDataset
from files.images import read_image

DESCRIPTION = """\
Time the loader that train.py uses, on a prepared data set or on noise images that are made for it.

Bare decoding reads the same number of files in one process and does nothing else. The two are measured in turns, by
the clock and by the processor time of the workers. The second is what counts on a machine with other work.

  python benchmarks/data_loading.py
  python benchmarks/data_loading.py prepared/kitti --workers 4"""


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            make_noise(Path(folder), 128, 416, 200)
        dataset = SnippetDataset(args.data or Path(folder), "train.txt", args.sequence_length)
        loading, decoding = [], []  # (samples per second, samples per second of processor time) of each round
        for number in range(args.rounds):
            loading.append(time_loader(dataset, args.batch_size, args.workers, args.batches, seed=number))
            decoding.append(time_decoding(dataset, args.batches * args.batch_size))
        one_worker = statistics.median(a / args.workers / b for (a, _), (b, _) in zip(loading, decoding, strict=True))
        processor = statistics.median(a / b for (_, a), (_, b) in zip(loading, decoding, strict=True))
    size = f"{dataset.width} x {dataset.height}, {args.sequence_length} frames a sample"
    print(f"{device_name(torch.device('cpu'))}; {size}")
    speeds = [statistics.median(speed for speed, _ in times) for times in (loading, decoding)]
    print(f"loader, {args.workers} worker(s)      {speeds[0]:8.1f} samples/s")
    print(f"loader, per worker        {speeds[0] / args.workers:8.1f} samples/s")
    print(f"bare decoding, one process{speeds[1]:8.1f} samples/s")
    print(f"per worker / bare         {one_worker:8.2f}")
    print(f"by processor time         {processor:8.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="prepared data set (default: noise of 416 x 128)")
    parser.add_argument("--sequence-length", type=positive_int, default=3, help="frames of a snippet (default: 3)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets of a batch (default: 4)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that read images (default: 1)")
    parser.add_argument("--batches", type=positive_int, default=100, help="batches in a round (default: 100)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds of both (default: 5)")
    return parser.parse_args()


def time_loader(dataset: SnippetDataset, batch_size: int, workers: int, count: int, seed: int) -> tuple[float, float]:
    """Samples per second of the loader over `count` batches, and per second of its workers' processor time."""
    batches = ShuffledBatches(len(dataset), batch_size, seed, 0, count + 1)
    before = children_seconds()
    next(load_batches(dataset, [[0] * batch_size], workers, pin_memory=False))  # a start and an end
    start_alone = children_seconds() - before
    loader = load_batches(dataset, batches, workers, pin_memory=False)
    next(loader)  # the workers' start does not count
    start = time.perf_counter()
    for _ in loader:
        pass
    seconds = time.perf_counter() - start
    del loader
    processor_seconds = children_seconds() - before - 2 * start_alone
    return count * batch_size / seconds, count * batch_size / processor_seconds


def children_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_decoding(dataset: SnippetDataset, samples: int) -> tuple[float, float]:
    """Samples per second that one process decodes when it does nothing else, and per second of its processor time."""
    frames = [frame for scene in dataset.scenes for frame in scene.frames]
    files = [frames[i % len(frames)] for i in range(samples * dataset.length)]
    start, processor_start = time.perf_counter(), time.process_time()
    for file in files:
        read_image(file)
    return samples / (time.perf_counter() - start), samples / (time.process_time() - processor_start)


if __name__ == "__main__":
    run_script(main)
