"""A child that trains nothing: ``python stub_child.py STEPS SECONDS_A_STEP FAULTS PARENT`` serves the real protocol.

FAULTS is JSON: number of the trial → what it does ("die", "exit", "hang", "deaf", "fail", "diverge", "memory", "full",
"print", "unusable", "segfault"; "hold:FOLDER" says there that it is in mid-trial, and goes on once it is let go). In a
pack "stubborn" leaves not when it is asked to, "endless" only then, and "last" ends when the others have.
The accuracy is an arithmetic of the number, so a wrong value is seen.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import time
from pathlib import Path

from autopeft.errors import BackboneError, DivergedError, OutOfMemoryError
from autopeft.study import Checkpoint, Measurement
from workers.child import Child, own_pipe, stay_with
from workers.failures import Unusable
from workers.stopping import Preempted


def main(steps, seconds, faults, parent):
    stay_with(int(parent))
    incoming, outgoing = own_pipe()
    planted = json.loads(faults)

    def evaluate(order, between_steps):
        for step in range(1, int(steps) + 1):
            time.sleep(float(seconds))
            between_steps(step)
            if step == max(1, int(steps) // 2):
                fault = planted.get(str(order.number), "")
                misbehave(fault)
                if fault.startswith("hold:"):
                    hold(Path(fault.removeprefix("hold:")), lambda step=step: between_steps(step))
        return measured(order)

    Child(incoming, outgoing, evaluate, Pack(int(steps), float(seconds), planted)).serve({"torch": "none"})


PATIENCE = 10_000
"""Steps after which what only ends when it is asked to ends all the same, so that a test fails and does not hang."""


class Pack:
    """Several orders at once: each is told of when its number of steps has come, the higher its number the later."""

    def __init__(self, steps, seconds, planted):
        self.steps, self.seconds, self.planted = steps, seconds, planted

    def measure_together(self, orders, tell, watch):
        waiting, step = {order.key: order for order in orders}, 0
        while waiting:
            step += 1
            time.sleep(self.seconds)
            asked = watch(step)
            for key, order in list(waiting.items()):
                found = self.outcome(order, step, asked, alone=len(waiting) == 1)
                if found is not None:
                    del waiting[key]
                    tell(order, found)

    def outcome(self, order, step, asked, *, alone):
        fault = self.planted.get(str(order.number), "")
        if order.key in asked and fault != "stubborn":
            stopped = Preempted("given up", keep=asked[order.key])
            stopped.checkpoint = Checkpoint(order.rung, f"trial-{order.number}", "c" * 64) if stopped.keep else None
            return stopped
        if step == max(1, self.steps // 2):
            try:
                misbehave(fault)
            except Exception as error:
                return error
        waits = step < PATIENCE and (fault == "endless" or (fault == "last" and not alone))
        return measured(order) if step >= self.steps + order.number and not waits else None


def measured(order):
    values = {"accuracy": accuracy(order.number), "loss": 1.0, "trainable_parameters": 1}
    values |= {"train_seconds": 0.1, "evaluate_seconds": 0.1}
    return Measurement(order.rung, values, ((1, 1.0),), (1, 0)), {"data": "stub"}


def accuracy(number):
    return 0.5 + number / 1000


def hold(folder, between_steps):
    (folder / "held").touch()
    while not (folder / "let-go").exists():
        time.sleep(0.01)
        between_steps()


def misbehave(fault):
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if fault == "deaf":
        print("deaf", file=sys.stderr, flush=True)
    if fault in ("deaf", "hang"):
        time.sleep(600)
    if fault == "fail":
        raise ValueError("planted failure")
    if fault == "diverge":
        raise DivergedError("the training loss is nan at step 3")
    if fault == "memory":
        raise OutOfMemoryError("out of memory: CUDA out of memory. Tried to allocate 2 GiB")
    if fault == "host memory":
        raise MemoryError
    if fault == "full":
        raise OSError(errno.ENOSPC, "No space left on device")
    if fault == "print":
        print('{"measurement": "not one"}', flush=True)
    if fault == "unusable":
        raise Unusable(BackboneError("no such model here"))
    if fault == "segfault":
        ctypes.string_at(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
