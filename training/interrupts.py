"""Requests to stop: Ctrl-C, SIGTERM, and an output that is closed."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from training import distributed

_NOTICE = b"\nstopping: this step is finished and a checkpoint written; a second Ctrl-C loses them\n"


class StopRequest:
    """True as soon as a signal, or the end of the output's reader, has asked the run to stop."""

    def __init__(self) -> None:
        self._first: float | None = None  # time of the first request

    def __bool__(self) -> bool:
        return self._first is not None

    def request(self) -> None:
        if self._first is None:
            self._first = time.monotonic()

    def handle_signal(self, number: int, frame: Any) -> None:
        """Request a stop. A second Ctrl-C interrupts the run at once.

        A second Ctrl-C within one second is ignored: torchrun forwards the signal to workers that already received it
        from the terminal.
        """
        if number == signal.SIGINT and self._first is not None and time.monotonic() - self._first > 1:
            raise KeyboardInterrupt
        if self._first is None and distributed.rank() == 0:
            with suppress(OSError):  # print is not safe here: the signal may have interrupted one
                os.write(2, _NOTICE)
        self.request()


def listen_for_stop() -> StopRequest:
    """A request that Ctrl-C, SIGTERM and a closed output set from now on.

    A closed output stops the run in order, since Ctrl-C ends `tee` in `train.py | tee log` first.
    """
    stop = StopRequest()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop.handle_signal)
    sys.stdout, sys.stderr = (_Output(stream, stop) for stream in (sys.stdout, sys.stderr))
    return stop


class _Output:
    """Wraps stdout or stderr; a broken pipe requests a stop, and what is written later is discarded."""

    def __init__(self, stream: Any, stop: StopRequest) -> None:
        self._stream, self._stop = stream, stop

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._survive_broken_pipe():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with self._survive_broken_pipe():
            self._stream.flush()

    @contextmanager
    def _survive_broken_pipe(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), self._stream.fileno())
            self._stop.request()
