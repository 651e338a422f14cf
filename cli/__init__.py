"""What the command-line scripts share. Importing it makes Ctrl-C end the process in one line, not in a traceback.

`cli.flags.run_script` does so for a script's `main`. This is for the seconds before, in which PyTorch is imported.
"""

import sys
from types import TracebackType


def _report(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):  # Python then ends the process by the signal: shells say 130
        print("\nstopped by Ctrl-C", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _report
