"""Time the loader: samples per second and worker, beside bare decoding of the same files."""

import argparse
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

Bare decoding reads the same number of files in one process and does nothing else. The two are measured in turns.

  python benchmarks/data_loading.py
  python benchmarks/data_loading.py prepared/kitti --workers 4"""


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.data is None:
            make_noise(Path(folder), 128, 416, 200)
        dataset = SnippetDataset(args.data or Path(folder), "train.txt", args.sequence_length)
        loading, decoding = [], []
        for number in range(args.rounds):
            loading.append(time_loader(dataset, args.batch_size, args.workers, args.batches, seed=number))
            decoding.append(time_decoding(dataset, args.batches * args.batch_size))
    size = f"{dataset.width} x {dataset.height}, {args.sequence_length} frames a sample"
    print(f"{device_name(torch.device('cpu'))}; {size}")
    print(f"loader, {args.workers} worker(s)      {statistics.median(loading):8.1f} samples/s")
    print(f"loader, per worker        {statistics.median(loading) / args.workers:8.1f} samples/s")
    print(f"bare decoding, one process{statistics.median(decoding):8.1f} samples/s")
    ratio = statistics.median(a / args.workers / b for a, b in zip(loading, decoding, strict=True))
    print(f"per worker / bare         {ratio:8.2f}")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="prepared data set (default: noise of 416 x 128)")
    parser.add_argument("--sequence-length", type=positive_int, default=3, help="frames of a snippet (default: 3)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets of a batch (default: 4)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that read images (default: 1)")
    parser.add_argument("--batches", type=positive_int, default=100, help="batches in a round (default: 100)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds of both (default: 5)")
    return parser.parse_args()


def time_loader(dataset: SnippetDataset, batch_size: int, workers: int, count: int, seed: int) -> float:
    """Samples per second of the loader over `count` batches."""
    batches = ShuffledBatches(len(dataset), batch_size, seed, 0, count + 1)
    loader = load_batches(dataset, batches, workers, pin_memory=False)
    next(loader)  # the workers' start does not count
    start = time.perf_counter()
    for _ in loader:
        pass
    return count * batch_size / (time.perf_counter() - start)


def time_decoding(dataset: SnippetDataset, samples: int) -> float:
    """Samples per second that one process decodes when it does nothing else."""
    frames = [frame for scene in dataset.scenes for frame in scene.frames]
    files = [frames[i % len(frames)] for i in range(samples * dataset.length)]
    start = time.perf_counter()
    for file in files:
        read_image(file)
    return samples / (time.perf_counter() - start)


if __name__ == "__main__":
    run_script(main)
