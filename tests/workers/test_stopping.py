import os
import signal
import subprocess
import sys
import time

import pytest

from workers.stopping import Preempted, Stop, obey_signals


@pytest.fixture
def signals_restored():
    numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_restored")
def test_signals_end_at_once_or_after_the_trial():
    stop = obey_signals(None)
    stop.check()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert (stop.requested, stop.now) == (True, False)
    stop.check()
    os.kill(os.getpid(), signal.SIGTERM)
    assert stop.now
    with pytest.raises(Preempted):
        stop.check()


def test_the_death_of_the_parent_ends_at_once():
    assert not Stop(parent=os.getppid()).now
    assert Stop(parent=1 if os.getppid() != 1 else 2).now


def test_after_its_time_a_worker_takes_no_trial_but_finishes_the_one_at_hand():
    stop = Stop(until=time.monotonic() - 1.0)
    assert (stop.requested, stop.now) == (True, False)
    assert not Stop(until=time.monotonic() + 60.0).requested


def test_waiting_ends_when_the_worker_is_asked_to_end():
    started = time.monotonic()
    Stop(draining=True).wait(60)
    Stop().wait(0.01)
    assert time.monotonic() - started < 30


def test_the_system_ends_the_child_of_a_killed_parent():
    child = (
        "import os, time; from workers.stopping import obey_signals; stop = obey_signals(os.getppid());"
        "print(os.getpid(), flush=True); stop.wait(30); print('ended' if stop.at_once else 'waited', flush=True)"
    )
    parent = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {child!r}]); time.sleep(30)"
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline().strip().isdigit()
        process.kill()
        assert process.stdout.readline() == "ended\n"
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
