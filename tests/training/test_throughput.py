import pytest

from training import throughput
from training.throughput import Throughput, advice


@pytest.fixture
def clock(monkeypatch):
    """The time of `perf_counter`, which the test sets."""
    now = [100.0]
    monkeypatch.setattr(throughput.time, "perf_counter", lambda: now[0])
    return now


def loader(clock, seconds):
    while True:
        clock[0] += seconds
        yield None


@pytest.mark.parametrize(("wait", "work", "share"), [(1, 1, 50), (1, 9, 10), (0, 5, 0)])
def test_the_share_of_the_time_and_above_a_fifth_what_to_change(clock, monkeypatch, wait, work, share):
    monkeypatch.setattr(throughput.os, "cpu_count", lambda: 8)
    speed, batches = Throughput(2), loader(clock, wait)
    for _ in range(20):
        speed.next_batch(batches)
        clock[0] += work
    clock[0] += 1000
    speed.pause(1000)  # a validation
    got, line = speed.end_of_epoch(1)
    assert got == pytest.approx(share / 100, abs=0.03)  # the first batch's wait is the start of the workers
    assert line.startswith("epoch 1: ")
    assert ("raise --workers (now 2; this machine has 8 cores)" in line) == (share > 20)


def test_short_epochs_are_reported_together(clock):
    speed, batches = Throughput(0), loader(clock, 0.1)
    reports = []
    for epoch in range(1, 41):
        speed.next_batch(batches)
        clock[0] += 0.9
        reports.append(speed.end_of_epoch(epoch))
    lines = [report[1] for report in reports if report]
    assert lines[0].startswith("epoch 1: ")
    assert lines[1].startswith("epochs 2 to 11: 10 %")


def test_a_batch_is_handed_through(clock):
    assert Throughput(0).next_batch(iter(["a", "b"])) == "a"


def test_a_lap_is_the_speed_since_the_last(clock):
    speed = Throughput(0)
    for batches, seconds in ((4, 1), (3, 0.5)):
        for _ in range(batches):
            speed.next_batch(loader(clock, seconds))
            clock[0] += 1
        clock[0] += 1000
        speed.pause(1000)
        batches_per_second, share = speed.lap()
        assert batches_per_second == pytest.approx(1 / (1 + seconds))
        first = seconds if batches == 4 else 0  # the start of the workers is no waiting
        assert share == pytest.approx((batches * seconds - first) / (batches * (1 + seconds)))


def test_with_a_worker_on_each_core_the_advice_is_another():
    assert "--workers" not in advice(8, 8)
    assert "faster disk" in advice(8, 8)
    assert "raise --workers (now 0" in advice(0, 8)
