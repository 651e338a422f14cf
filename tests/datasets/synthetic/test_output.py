"""An error of the system names the file that could not be written."""

import errno
import os

import pytest
from path import Path

from datasets.synthetic.output import write_bytes, write_text


@pytest.mark.parametrize(("write", "content"), [(write_bytes, b"1"), (write_text, "1")])
def test_a_file_that_cannot_be_written_to_its_end_is_named(write, content, tmp_path, monkeypatch):
    file = Path(tmp_path / "folder/file")

    def full(self, *_, **__):
        self.touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(OSError, match="No space left") as error:
        write(file, content)
    assert error.value.filename == str(file)
    assert error.value.errno == errno.ENOSPC
    assert not list(tmp_path.rglob("*.part"))


def test_a_text_that_is_there_is_not_written_again(tmp_path):
    file = Path(tmp_path / "file")
    write_text(file, "same")
    before = os.stat(file).st_ino
    write_text(file, "same")
    assert os.stat(file).st_ino == before
    write_text(file, "another")
    assert file.read_text() == "another"
