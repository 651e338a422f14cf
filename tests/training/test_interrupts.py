import os
import signal
import subprocess
import sys

import pytest
from path import Path

from training import interrupts
from training.interrupts import StopRequest, _Output, listen_for_stop

ROOT = Path(__file__).absolute().parent.parent.parent
NOTICE = "stopping: this step is finished and a checkpoint written; a second Ctrl-C loses them"


@pytest.fixture
def clock(monkeypatch):
    """The time of `monotonic`, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(interrupts.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def listen():
    """`listen_for_stop`; handlers and outputs are restored afterwards."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers, outputs = {number: signal.getsignal(number) for number in numbers}, (sys.stdout, sys.stderr)
    yield listen_for_stop
    sys.stdout, sys.stderr = outputs
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_requests_a_stop_and_says_so_once(listen, capfd, number):
    stop = listen()
    assert not stop
    signal.raise_signal(number)
    assert stop
    signal.raise_signal(signal.SIGTERM)
    assert capfd.readouterr().err == f"\n{NOTICE}\n"


def test_a_second_ctrl_c_interrupts_after_a_second(clock, capfd):
    stop = StopRequest()
    stop.handle_signal(signal.SIGINT, None)
    for passed in (0.0, 0.5, 0.4):  # torchrun forwards the first one
        clock[0] += passed
        stop.handle_signal(signal.SIGINT, None)
    clock[0] += 0.2
    stop.handle_signal(signal.SIGTERM, None)  # a scheduler's signal never interrupts a step
    with pytest.raises(KeyboardInterrupt):
        stop.handle_signal(signal.SIGINT, None)
    assert stop


def test_the_time_counts_from_the_first_request(clock):
    stop = StopRequest()
    stop.request()
    clock[0] += 0.8
    stop.request()
    clock[0] += 0.8
    with pytest.raises(KeyboardInterrupt):
        stop.handle_signal(signal.SIGINT, None)


def test_only_the_first_process_prints_the_notice(monkeypatch, capfd):
    monkeypatch.setattr(interrupts.distributed, "rank", lambda: 1)
    stop = StopRequest()
    stop.handle_signal(signal.SIGINT, None)
    assert stop
    assert capfd.readouterr().err == ""


def test_a_notice_that_cannot_be_written_stops_all_the_same(monkeypatch):
    def fail(*arguments):
        raise BrokenPipeError

    monkeypatch.setattr(interrupts.os, "write", fail)
    stop = StopRequest()
    stop.handle_signal(signal.SIGTERM, None)
    assert stop


@pytest.mark.parametrize("by", ["write", "flush"])
def test_a_closed_output_requests_a_stop_and_what_is_written_later_is_discarded(by):
    reader, writer = os.pipe()
    stop = StopRequest()
    with os.fdopen(writer, "w", buffering=1 if by == "write" else -1) as stream:
        output = _Output(stream, stop)
        assert output.write("read\n") == 5
        output.flush()
        assert os.read(reader, 100) == b"read\n"
        assert not stop
        os.close(reader)
        output.write("lost\n")
        assert bool(stop) == (by == "write")
        output.flush()
        assert stop
        for _ in range(3):
            assert output.write("lost, too\n" * 10_000) == 100_000
            output.flush()


def test_an_output_is_a_stream_in_all_else(capsys):
    output = _Output(sys.stdout, StopRequest())
    print("text", file=output)
    assert output.encoding == sys.stdout.encoding
    assert output.isatty() == sys.stdout.isatty()
    assert capsys.readouterr().out == "text\n"


def test_listening_wraps_both_outputs(listen, capsys):
    listen()
    assert isinstance(sys.stdout, _Output)
    assert isinstance(sys.stderr, _Output)
    print("text")
    print("error", file=sys.stderr)
    assert capsys.readouterr() == ("text\n", "error\n")


def test_a_process_whose_reader_ends_is_asked_to_stop():
    script = (
        "import sys\n"
        "from training.interrupts import listen_for_stop\n"
        "stop = listen_for_stop()\n"
        "while not stop: print('x' * 1000, flush=True)\n"
        "print('more')\n"
        "sys.exit(7)"
    )
    process = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE)
    assert process.stdout.read(3) == b"xxx"
    process.stdout.close()
    assert process.wait(timeout=60) == 7
