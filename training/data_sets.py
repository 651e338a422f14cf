"""The snippets that a training reads: from a folder of prepared data, or from shards."""

import tempfile

from path import Path

from datasets.loading import ShuffledBatches
from datasets.shards import ShardedBatches, ShardedSnippets, ShardIndex, is_sharded, read_index, unpack_validation
from datasets.snippets import SnippetDataset
from files.errors import InputError, UsageError
from models.layers import SMALLEST_SIDE
from training import distributed
from training.options import TrainOptions
from training.validation import open_validation


def open_data_sets(
    options: TrainOptions,
) -> tuple[SnippetDataset, SnippetDataset | None, tempfile.TemporaryDirectory | None]:
    """The snippets of the training and of its validation, and a folder that lasts as long as they are used.

    Raises:
        InputError: the data cannot be trained with, or not be fetched.
    """
    data, length, scratch = options.data or "", options.sequence_length, None
    training: SnippetDataset
    if is_sharded(data):
        if options.data_in_memory:
            raise UsageError(f"--data-in-memory: {data} are shards; expected the folder of a prepared data set")
        index = read_index(data)
        training = ShardedSnippets(index, length, options.fov)
        root, scratch = _fetch_validation(index)
    else:
        root = Path(data)
        training = SnippetDataset(root, "train.txt", length, fov=options.fov)
    _check_size(training)
    validation = open_validation(root, length, (training.height, training.width), options.fov)
    if validation is not None:
        validation.number_cameras_like(training)
    return training, validation, scratch


def _check_size(training: SnippetDataset) -> None:
    """InputError if the images are too small for the networks."""
    if min(training.height, training.width) < SMALLEST_SIDE:
        raise InputError(
            f"images of {training.width} x {training.height} pixels, expected {SMALLEST_SIDE} or more along each side; "
            "prepare the data at a larger --width and --height"
        )


def shuffled_batches(dataset: SnippetDataset, options: TrainOptions, start: int, stop: int) -> ShuffledBatches:
    """This process's batches. A step's snippets are cut into a piece for each process and accumulated batch."""
    processes = distributed.count()
    cut = (options.batch_size, options.seed, start, stop, processes * options.accumulate)
    if isinstance(dataset, ShardedSnippets):
        return ShardedBatches(dataset, *cut, distributed.rank(), processes)
    return ShuffledBatches(len(dataset), *cut, distributed.rank(), processes)


def _fetch_validation(index: ShardIndex) -> tuple[Path, tempfile.TemporaryDirectory | None]:
    """A folder with the validation scenes, which the processes of one machine share."""
    group = distributed.processes_of_this_machine()
    scratch, name, error = None, "", ""
    if group[0] == distributed.rank():
        scratch = tempfile.TemporaryDirectory(prefix="validation-", ignore_cleanup_errors=True)
        name = scratch.name
        try:
            unpack_validation(index, Path(name), quiet=distributed.rank() > 0)
        except InputError as failure:
            error = str(failure)
    answers = distributed.gather((name, error))
    if errors := [error for _, error in answers if error]:
        raise InputError(errors[0])
    return Path(answers[group[0]][0]), scratch
