"""One process at a time in a folder: two that write there spoil each other's files."""

import errno
import fcntl
import os
from typing import IO

from path import Path

from files.errors import InputError


def hold(folder: Path) -> IO[str]:
    """Keep other processes from holding an existing folder until the returned file is closed, or this process ends.

    However it ends, the system lets go; the empty file `.lock` stays. Processes that this one forks don't hold it.

    Raises:
        InputError: another process holds it.
    """
    try:
        file = open(Path(folder) / ".lock", "w")  # noqa: SIM115
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
            raise
        return open(os.devnull, "w")  # what may not be written needs no lock
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        file.close()
        raise InputError(
            f"{folder}: another process is at work there; expected one at a time, wait until it has ended or end it"
        ) from None
    except OSError:  # a file system that has no locks
        pass
    return file
