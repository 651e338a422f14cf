import numpy as np
import pytest
from path import Path

from files.errors import InputError
from training.logger import Logger, cut_metrics, read_metrics

LINES = [f'{{"split": "train", "step": {step}, "loss": 0.5}}\n' for step in range(1, 5)]


@pytest.fixture
def file(tmp_path):
    file = Path(tmp_path) / "metrics.jsonl"
    file.write_text("".join(LINES))
    return file


@pytest.mark.parametrize("cut", range(1, len(LINES[3]) + 1))
def test_a_cut_last_line_is_left_out(file, cut):
    file.write_bytes(file.read_bytes()[:-cut])
    assert [record["step"] for record in read_metrics(file)] == [1, 2, 3]


@pytest.mark.parametrize(
    "line",
    [
        *("{", "[1]", "7", '{"step": "a", "split": "train"}', '{"step": 3}', "\x00", "[" * 10000),
        f'{{"step": 2, "split": "train", "x": {"[" * 900}{"]" * 900}}}',
    ],
    ids=lambda line: line[:32],
)
def test_a_damaged_line_in_between_is_an_error_with_its_number(file, line):
    file.write_text(LINES[0] + line + "\n" + LINES[1])
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 2: expected"):
        read_metrics(file)


def test_a_value_that_is_no_number_is_read(file):
    """As Python writes it, where a quantity of a step could not be computed."""
    file.write_text('{"split": "train", "step": 1, "objective/loss": NaN}\n')
    assert np.isnan(read_metrics(file)[0]["objective/loss"])


def test_bytes_that_are_no_text_are_an_error(file):
    file.write_bytes(b"\xff\xfe\n")
    with pytest.raises(InputError, match=r"metrics\.jsonl, line 1: expected"):
        read_metrics(file)


def test_no_file_and_an_empty_one(file):
    file.write_bytes(b"")
    assert read_metrics(file) == []
    file.remove()
    with pytest.raises(InputError, match="no such file"):
        read_metrics(file)


def test_what_is_later_than_a_step_is_cut_away(file):
    file.write_text(file.read_text() + '{"split": "tr')
    assert [record["step"] for record in cut_metrics(file, 2)] == [1, 2]
    assert file.read_text() == "".join(LINES[:2])
    assert not file.parent.files("*.part")


def test_without_a_folder_nothing_is_logged(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    logger = Logger(None)
    logger.scalars("train", 1, {"a": 1.0})
    logger.warning(1, "a", "b")
    logger.text("a", "b")
    logger.sync()
    logger.close()
    assert not list(Path(tmp_path).walk())


def test_a_full_disk_is_one_error_that_names_the_run(tmp_path, capfd):
    folder = Path(tmp_path)
    logger = Logger(folder)
    logger._metrics = Path("/dev/full").open("w")
    for log in (lambda: logger.scalars("train", 1, {"loss": 0.5}), lambda: logger.warning(1, "name", "text")):
        with pytest.raises(InputError, match=r"could not be written \(No space left on device\); .* --resume"):
            log()


def test_a_full_disk_for_tensorboard_is_the_same_error_and_no_traceback(tmp_path, capfd):
    logger = Logger(Path(tmp_path))
    logger._tensorboard.flush()
    record = logger._tensorboard.file_writer.event_writer._async_writer._worker._record_writer
    record._writer.close()
    record._writer = Path("/dev/full").open("wb", buffering=0)
    with pytest.raises(InputError, match="the logs could not be written"):
        logger.scalars("train", 1, {"loss": 0.5})
    assert "Traceback" not in capfd.readouterr().err
