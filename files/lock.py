"""One process at a time in a folder: two processes that write there would spoil each other's files."""

import errno
import os

import filelock
from path import Path

from files.errors import InputError

_NAME = ".lock"


class FolderLock:
    """A held lock; `close` releases it, and so does the end of the process, however it ends."""

    def __init__(self, lock: filelock.BaseFileLock | None) -> None:
        self._lock = lock

    def close(self) -> None:
        if self._lock is not None:
            self._lock.release()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def hold(folder: Path) -> FolderLock:
    """Keep other processes from holding an existing folder until the lock is closed, or this process ends.

    The empty file `.lock` stays. Processes that this one forks do not hold the lock. A folder that may not be written,
    and a file system without locks, need no lock.

    Raises:
        InputError: another process holds the folder, or its `.lock` is a link, through which a lock would write.
    """
    file = Path(folder) / _NAME
    if os.path.islink(file) or (file.exists() and os.stat(file).st_nlink > 1):
        raise InputError(f"{file}: is a link, expected an empty file of this project; remove it")
    # A second: after a kill, forked workers close their copy of the lock a moment later.
    lock = filelock.FileLock(file, timeout=1, thread_local=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(
            f"{folder}: another process is at work there; expected one at a time, wait until it has ended or end it"
        ) from None
    except NotImplementedError:
        return FolderLock(None)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOLCK, errno.ENOTSUP):
            raise
        return FolderLock(None)
    return FolderLock(lock)
