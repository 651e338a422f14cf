"""Time the loader: samples per second and worker from files and from shards, beside bare decoding of the same files."""

import argparse
import http.server
import multiprocessing
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import torch
from path import Path
from tqdm import tqdm

sys.path.insert(0, Path(__file__).absolute().parent.parent)

from cli.flags import positive_float, positive_int, run_script

from benchmarks.surroundings import device_name, make_noise
from datasets.loading import ShuffledBatches, load_batches
from datasets.packing import pack
from datasets.shards import ShardedBatches, ShardedSnippets, read_index
from datasets.snippets import SnippetDataset
from files.images import read_image

DESCRIPTION = """\
Time the loader that train.py uses, on a prepared data set or on noise images that are made for it: from files, from
shards in a folder, and from shards of a server on this machine (pip install -r requirements-shards.txt).

Bare decoding reads the same number of files in one process and does nothing else. All are measured in turns, by the
clock and by the processor time of the workers. The second is what counts on a machine with other work.

  python benchmarks/data_loading.py
  python benchmarks/data_loading.py prepared/kitti --workers 4"""


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, tempfile.TemporaryDirectory() as packed:
        if args.data is None:
            make_noise(Path(folder), 128, 416, args.frames)
        root = args.data or Path(folder)
        files = SnippetDataset(root, "train.txt", args.sequence_length)
        pack(files, None, root, Path(packed), round(args.shard_size * 1e6), overlap=args.sequence_length - 1)
        with serve(packed) as url:
            sources = {"files": files} | {
                name: ShardedSnippets(read_index(place), args.sequence_length)
                for name, place in (("shards in a folder", packed), ("shards at a local URL", url))
            }
            times = measure(sources, args)
    size = f"{files.width} x {files.height}, {args.sequence_length} frames a sample"
    print(f"{device_name(torch.device('cpu'))}; {size}; {args.workers} worker(s)")
    print(f"{'':24s}{'samples/s':>10s}{'per worker / bare':>20s}{'by processor time':>20s}")
    bare = times.pop("bare decoding")
    for name, rounds in times.items():
        per_worker = statistics.median(a / args.workers / b for (a, _), (b, _) in zip(rounds, bare, strict=True))
        processor = statistics.median(a / b for (_, a), (_, b) in zip(rounds, bare, strict=True))
        print(f"{name:24s}{statistics.median(a for a, _ in rounds):10.1f}{per_worker:20.2f}{processor:20.2f}")
    print(f"{'bare decoding':24s}{statistics.median(a for a, _ in bare):10.1f}")


def measure(sources: dict[str, SnippetDataset], args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """(samples per second, samples per second of processor time) of each round, in turns."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in (*sources, "bare decoding")}
    for number in tqdm(range(args.rounds), desc="rounds", leave=False):
        for name, dataset in sources.items():
            times[name].append(time_loader(dataset, args.batch_size, args.workers, args.batches, seed=number))
        times["bare decoding"].append(time_decoding(sources["files"], args.batches * args.batch_size))
    return times


@contextmanager
def serve(folder: str) -> Iterator[str]:
    """A web server of a folder, as a process of its own; its URL."""
    os.environ["NO_PROXY"] = "127.0.0.1"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(_Handler, directory=folder))
    process = multiprocessing.get_context("fork").Process(target=server.serve_forever, daemon=True)
    process.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        process.kill()
        server.server_close()


class _Handler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *arguments: object) -> None:
        """Print nothing."""


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="prepared data set (default: noise of 416 x 128)")
    parser.add_argument("--sequence-length", type=positive_int, default=3, help="frames of a snippet (default: 3)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets of a batch (default: 4)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that read images (default: 1)")
    parser.add_argument("--batches", type=positive_int, default=100, help="batches in a round (default: 100)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds of all (default: 5)")
    parser.add_argument("--frames", type=positive_int, default=200, help="noise images that are made (default: 200)")
    parser.add_argument("--shard-size", type=positive_float, default=16, help="MB of a shard (default: 16)")
    return parser.parse_args()


def time_loader(dataset: SnippetDataset, batch_size: int, workers: int, count: int, seed: int) -> tuple[float, float]:
    """Samples per second of the loader over `count` batches, and per second of its workers' processor time."""
    batches = ShuffledBatches(len(dataset), batch_size, seed, 0, count + 1)
    if isinstance(dataset, ShardedSnippets):
        batches = ShardedBatches(dataset, batch_size, seed, 0, count + 1)
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
