"""The supervisor against a child that trains nothing and misbehaves as it is told."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
from safetensors import SafetensorError

from autopeft.errors import BackboneError, EvaluationError, LeaseLostError, OutOfMemoryError
from autopeft.store import Failure
from workers import supervisor
from workers.failures import TrialFailure, Unusable, classify
from workers.pipe import Lines, measurement_from_json, measurement_to_json, order_from_json, order_to_json
from workers.stopping import Preempted
from workers.supervisor import Supervised


@pytest.fixture
def supervise(stub_supervisors):
    return partial(stub_supervisors, Supervised)


@pytest.fixture
def order(study, make_order):
    return lambda number=0: make_order(study, number=number)


def go_on():
    pass


def process_of(supervised):
    return supervised._child._process


def failure_of(supervised, order):
    with pytest.raises(TrialFailure) as caught:
        supervised.evaluate(order, go_on)
    return caught.value


def test_orders_and_measurements_pass_the_pipe_unchanged(study, make_order, supervise):
    order = make_order(study)
    assert order_from_json(json.loads(json.dumps(order_to_json(order)))) == order
    measurement, environment = supervise().evaluate(order, go_on)
    assert measurement_from_json(json.loads(json.dumps(measurement_to_json(measurement)))) == measurement
    assert environment == {"data": "stub"}


def test_one_child_serves_order_after_order(supervise, order):
    one = supervise()
    assert one.start() == {"torch": "none"}
    first = process_of(one).pid
    found = [one.evaluate(order(number), go_on)[0].values["accuracy"] for number in range(3)]
    assert found == [0.5, 0.501, 0.502]
    assert process_of(one).pid == first


def test_what_libraries_print_does_not_disturb_the_pipe(supervise, order, capsys):
    measurement, _ = supervise(trial_0="print").evaluate(order(), go_on)
    assert measurement.values["accuracy"] == 0.5


@pytest.mark.parametrize(
    ("fault", "kind", "said"),
    [
        ("die", Failure.LOST, "killed by SIGKILL"),
        ("exit", Failure.LOST, "status 3"),
        ("segfault", Failure.LOST, "killed by SIGSEGV"),
        ("fail", Failure.EXCEPTION, "ValueError: planted failure"),
        ("diverge", Failure.DIVERGED, "the training loss is nan"),
        ("memory", Failure.GPU_MEMORY, "CUDA out of memory"),
        ("host memory", Failure.HOST_MEMORY, "MemoryError"),
        ("full", Failure.DISK, "No space left on device"),
    ],
)
def test_every_way_to_fail_is_told_apart_and_the_next_order_is_served(supervise, order, fault, kind, said):
    one = supervise(trial_0=fault)
    failure = failure_of(one, order(0))
    assert (failure.kind, said in failure.reason) == (kind, True)
    assert one.evaluate(order(1), go_on)[0].values["accuracy"] == 0.501


def test_a_failure_brings_its_traceback_and_a_death_its_last_words(supervise, order):
    assert "misbehave" in failure_of(supervise(trial_0="fail"), order()).trace
    assert "last words" in failure_of(supervise(trial_0="exit"), order()).trace
    assert "Segmentation fault" in failure_of(supervise(trial_0="segfault"), order()).trace


def test_a_child_that_hangs_is_killed_and_says_where_it_stood(supervise, order):
    one = supervise(hang_seconds=1.0, trial_0="hang")
    one.start()
    failure = failure_of(one, order())
    assert failure.kind is Failure.HANG
    assert failure.reason.startswith("no progress for")
    assert "misbehave" in failure.trace


def test_where_a_child_hangs_is_heard_however_slowly_it_says_so(supervise, order, monkeypatch):
    def slowly(child, number):
        child._process.send_signal(signal.SIGSTOP)
        child._process.send_signal(number)
        threading.Timer(1.5, child._process.send_signal, [signal.SIGCONT]).start()

    monkeypatch.setattr(supervisor.ChildProcess, "signal", slowly)
    assert "misbehave" in failure_of(supervise(hang_seconds=1.0, trial_0="hang"), order()).trace


def test_slow_steps_are_no_hang(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(supervisor.time, "monotonic", lambda: now[0])
    progress = supervisor.Progress(hang_seconds=5.0, load_seconds=10.0)
    now[0] = 9.0
    assert not progress.hangs
    progress.made(1)
    now[0] += 6.0
    assert progress.hangs
    progress.made(2)
    now[0] += 29.0
    assert not progress.hangs  # five steps of six seconds
    now[0] += 2.0
    assert progress.hangs


@pytest.mark.parametrize("error", [Preempted("stop"), LeaseLostError("gone")])
def test_a_trial_that_is_given_up_leaves_the_child_ready_for_the_next(supervise, order, error):
    one = supervise(steps=1000)

    def check():
        raise error

    one.start()
    first = process_of(one).pid
    with pytest.raises(type(error)):
        one.evaluate(order(), check)
    assert process_of(one).pid == first


def test_a_child_that_does_not_listen_is_killed_in_the_end(supervise, order, monkeypatch):
    monkeypatch.setattr(supervisor, "GIVE_UP_SECONDS", 0.2)
    one = supervise(steps=2, trial_0="deaf")
    one.start()
    process = process_of(one)

    def check():
        if "deaf" in one._child.last_words:
            raise Preempted("stop")

    with pytest.raises(Preempted):
        one.evaluate(order(), check)
    assert process.returncode == -signal.SIGKILL


def test_what_no_trial_is_to_blame_for_ends_the_worker_with_its_own_error(supervise, order):
    with pytest.raises(Unusable) as caught:
        supervise(trial_0="unusable").evaluate(order(), go_on)
    assert isinstance(caught.value.cause, BackboneError)


def test_a_child_that_cannot_start_leaves_its_last_words():
    with pytest.raises(EvaluationError, match=r"could not be started \(status 1\): no such thing"):
        Supervised([sys.executable, "-c", "raise SystemExit('no such thing')"]).start()


def test_closing_leaves_no_process_behind(supervise, order):
    one = supervise(steps=1000)
    one.start()
    process = process_of(one)
    one.close()
    assert process.returncode == -signal.SIGKILL


def test_the_child_dies_with_its_supervisor(stub_command):
    code = (
        "import sys, time; from workers.supervisor import Supervised\n"
        f"one = Supervised({stub_command()!r}); one.start()\n"
        "print(one._child._process.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as parent:
        child = int(parent.stdout.readline())
        parent.kill()
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and running(child):
        time.sleep(0.02)
    assert not running(child)


def running(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_a_full_disk_is_seen_whoever_says_it():
    wrapped = RuntimeError("could not be saved")
    wrapped.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    writer = RuntimeError("[enforce fail at inline_container.cc:603] . PytorchStreamWriter failed: file write failed")
    rust = SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")
    assert [classify(error) for error in (wrapped, writer, rust)] == [Failure.DISK] * 3


def test_memory_is_told_apart_by_where_it_was_wanted():
    assert classify(OutOfMemoryError("out of memory: CUDA out of memory")) is Failure.GPU_MEMORY
    assert classify(OutOfMemoryError("out of memory: DefaultCPUAllocator")) is Failure.HOST_MEMORY


def test_a_process_killed_for_memory_is_no_loss(supervise, order, monkeypatch):
    counts = iter([0, 1])
    monkeypatch.setattr(supervisor, "out_of_memory_kills", lambda: next(counts))
    assert failure_of(supervise(trial_0="die"), order()).kind is Failure.HOST_MEMORY


def test_lines_come_whole_however_they_were_cut():
    incoming, outgoing = os.pipe()
    lines = Lines(incoming)
    os.write(outgoing, b'{"step"')
    assert lines.read(0.01) is None
    os.write(outgoing, b': 1}\n{"step": 2}\n')
    assert [lines.read(0.1), lines.read(0.1)] == [{"step": 1}, {"step": 2}]
    os.close(outgoing)
    assert lines.read(0.1) is None
    assert lines.closed
    os.close(incoming)
