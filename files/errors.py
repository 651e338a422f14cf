"""The exceptions for failures that a user can cause."""


class InputError(ValueError):
    """An input (a file, a folder, a value) is not what it must be.

    The message is one line that states what was found, what was expected, where, and, where it helps, what to do.
    Scripts print it without a traceback and exit with status 1 (see `cli.flags.run_script`).
    """


class UsageError(InputError):
    """The command line is wrong: a flag's value is out of range, or flags exclude each other. Exit status 2."""


class WriteError(InputError):
    """A file could not be written; `errno` is the operating system's number of the reason, for example ENOSPC."""

    def __init__(self, message: str, errno: int | None = None) -> None:
        super().__init__(message)
        self.errno = errno
