import errno
import os
import subprocess
import sys

import filelock
import pytest
from path import Path

from files.errors import InputError
from files.lock import hold

ROOT = Path(__file__).absolute().parent.parent.parent
HOLD = "import sys; from files.lock import hold; held = hold(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


def test_one_process_at_a_time_until_it_ends_in_whatever_way(tmp_path):
    command = [sys.executable, "-c", HOLD, tmp_path]
    for end in ("kill", "close"):
        other = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another process is at work there"):
            hold(Path(tmp_path))
        other.kill() if end == "kill" else other.stdin.close()
        other.wait()
        with hold(Path(tmp_path)):
            refused = subprocess.run(command, cwd=ROOT, input=b"", capture_output=True)
            assert b"another process" in refused.stderr


def test_a_forked_process_holds_nothing(tmp_path):
    """A loader's workers live some seconds longer than a training that was killed."""
    code = (
        "import os, sys, time\nfrom files.lock import hold\nheld = hold(sys.argv[1])\n"
        "if os.fork() == 0:\n    os.close(0), os.close(1), os.close(2), time.sleep(5)\nos._exit(0)"
    )
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True)
    hold(Path(tmp_path)).close()


def test_what_may_not_be_written_needs_no_lock(tmp_path, monkeypatch):
    def refuse(self, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(filelock.FileLock, "acquire", refuse)
    hold(Path(tmp_path)).close()


@pytest.mark.parametrize("link", [os.symlink, os.link])
def test_a_lock_does_not_write_through_a_link(tmp_path, link):
    folder, precious = Path(tmp_path) / "run", Path(tmp_path) / "precious.txt"
    folder.mkdir()
    precious.write_text("precious")
    link(precious, folder / ".lock")
    with pytest.raises(InputError, match=r"\.lock: is a link, expected an empty file"):
        hold(folder)
    assert precious.read_text() == "precious"
