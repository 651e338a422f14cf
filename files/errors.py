"""The one exception for what a user can cause."""


class InputError(ValueError):
    """Something given from outside (a file, a folder, a flag's value) is not what it must be.

    The message is one line that says what was found, what was expected, where, and, where it helps, what to
    do. Scripts print it without a traceback and exit with status 1 (see `options.run_script`).
    """
