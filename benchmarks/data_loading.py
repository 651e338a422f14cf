"""Time the loader: samples per second from files, from shards and from memory, beside bare decoding of the files."""

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

from cli.flags import ArgumentParser, positive_float, positive_int, run_script

from benchmarks.surroundings import device_name, make_noise
from datasets.in_memory import FramesInMemory
from datasets.loading import Batch, ShuffledBatches, load_batches
from datasets.packing import pack
from datasets.shards import ShardedBatches, ShardedSnippets, read_index
from datasets.snippets import SnippetDataset
from files.images import read_image
from files.memory import keep_freed_memory

DESCRIPTION = """\
Time the loader that train.py uses, on a prepared data set or on noise images that are made for it: from files, from
shards in a folder, from shards of a server on this machine (pip install -r requirements-shards.txt), and from frames
in the host's memory (train.py --data-in-memory; no worker, and without the decoding before the first step).

Bare decoding reads the same number of files in one process and does nothing else. All are measured in turns, by the
clock and by the processor time of the workers. The second is what counts on a machine with other work. The last column
is what a training itself spends on a batch, beside its workers.

  python benchmarks/data_loading.py
  python benchmarks/data_loading.py prepared/kitti --workers 4"""


MEMORY = "frames in memory"


def main() -> None:
    args = parse_arguments()
    torch.set_num_threads(1)
    keep_freed_memory()  # as train.py does
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
    print(f"{'':24s}{'samples/s':>10s}{'per worker / bare':>20s}{'by processor time':>20s}{'training, ms/batch':>20s}")
    bare = times.pop("bare decoding")
    for name, rounds in times.items():
        workers = 1 if name == MEMORY else args.workers
        per_worker = statistics.median(a[0] / workers / b[0] for a, b in zip(rounds, bare, strict=True))
        processor = statistics.median(a[1] / b[1] for a, b in zip(rounds, bare, strict=True))
        rate, training = (statistics.median(one[column] for one in rounds) for column in (0, 2))
        print(f"{name:24s}{rate:10.1f}{per_worker:20.2f}{processor:20.2f}{1000 * training:20.2f}")
    print(f"{'bare decoding':24s}{statistics.median(a for a, *_ in bare):10.1f}")


def measure(
    sources: dict[str, SnippetDataset], args: argparse.Namespace
) -> dict[str, list[tuple[float, float, float]]]:
    """Of each round, in turns: samples per second, per second of processor time, and what the training process spends.

    The last is its processor time in seconds for a batch.
    """
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in (*sources, MEMORY, "bare decoding")}
    memory = FramesInMemory(sources["files"])
    frames = torch.empty(memory.shape, dtype=torch.uint8)
    memory.take(frames, memory.fill(frames, args.workers))
    for number in tqdm(range(args.rounds), desc="rounds", leave=False):
        for name, dataset in sources.items():
            times[name].append(time_loader(dataset, args.batch_size, args.workers, args.batches, seed=number))
        times[MEMORY].append(time_memory(memory, sources["files"], args.batch_size, args.batches, seed=number))
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
    parser = ArgumentParser(description=DESCRIPTION, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs="?", help="prepared data set (default: noise of 416 x 128)")
    parser.add_argument("--sequence-length", type=positive_int, default=3, help="frames of a snippet (default: 3)")
    parser.add_argument("--batch-size", type=positive_int, default=4, help="snippets of a batch (default: 4)")
    parser.add_argument("--workers", type=positive_int, default=1, help="processes that read images (default: 1)")
    parser.add_argument("--batches", type=positive_int, default=100, help="batches in a round (default: 100)")
    parser.add_argument("--rounds", type=positive_int, default=5, help="rounds of all (default: 5)")
    parser.add_argument("--frames", type=positive_int, default=200, help="noise images that are made (default: 200)")
    parser.add_argument("--shard-size", type=positive_float, default=16, help="MB of a shard (default: 16)")
    return parser.parse_args()


def time_loader(
    dataset: SnippetDataset, batch_size: int, workers: int, count: int, seed: int
) -> tuple[float, float, float]:
    """Times of the loader over `count` batches, as `measure` has them; the processor time is the workers'."""
    batches = ShuffledBatches(len(dataset), batch_size, seed, 0, count + 1)
    if isinstance(dataset, ShardedSnippets):
        batches = ShardedBatches(dataset, batch_size, seed, 0, count + 1)
    before = children_seconds()
    next(load_batches(dataset, [[0] * batch_size], workers, pin_memory=False))  # a start and an end
    start_alone = children_seconds() - before
    loader = load_batches(dataset, batches, workers, pin_memory=False)
    next(loader)  # the workers' start does not count
    seconds, own_seconds = exhaust(loader)
    del loader
    processor_seconds = children_seconds() - before - 2 * start_alone
    return count * batch_size / seconds, count * batch_size / processor_seconds, own_seconds / count


def time_memory(
    memory: FramesInMemory, dataset: SnippetDataset, batch_size: int, count: int, seed: int
) -> tuple[float, float, float]:
    """Times of batches of frames in memory, as `measure` has them; the processor time is this process's."""
    loader = memory.batches(ShuffledBatches(len(dataset), batch_size, seed, 0, count + 1), pin_memory=False)
    next(loader)
    seconds, own_seconds = exhaust(loader)
    return count * batch_size / seconds, count * batch_size / own_seconds, own_seconds / count


def exhaust(loader: Iterator[Batch]) -> tuple[float, float]:
    """Seconds until the loader ends, and this process's processor time meanwhile."""
    start, own_start = time.perf_counter(), time.process_time()
    for _ in loader:
        pass
    return time.perf_counter() - start, time.process_time() - own_start


def children_seconds() -> float:
    """Processor time of the child processes that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def time_decoding(dataset: SnippetDataset, samples: int) -> tuple[float, float, float]:
    """Times of one process that decodes so many samples and does nothing else, as `measure` has them."""
    frames = [frame for scene in dataset.scenes for frame in scene.frames]
    files = [frames[i % len(frames)] for i in range(samples * dataset.length)]
    start, processor_start = time.perf_counter(), time.process_time()
    for file in files:
        read_image(file)
    return samples / (time.perf_counter() - start), samples / (time.process_time() - processor_start), 0.0


if __name__ == "__main__":
    run_script(main)
