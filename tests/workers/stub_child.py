"""A child that trains nothing: ``python stub_child.py STEPS SECONDS_A_STEP FAULTS PARENT`` serves the real protocol.

FAULTS is JSON: number of the trial → what it does ("die", "exit", "hang", "fail", "diverge", "memory", "full",
"print", "unusable", "segfault"). The accuracy is an arithmetic of the number, so a wrong value is seen.
"""

import ctypes
import errno
import json
import os
import signal
import sys
import time

from autopeft.errors import BackboneError, DivergedError, OutOfMemoryError
from autopeft.study import Measurement
from workers.child import Child, own_pipe, stay_with
from workers.failures import Unusable


def main(steps, seconds, faults, parent):
    stay_with(int(parent))
    incoming, outgoing = own_pipe()
    planted = json.loads(faults)

    def evaluate(order, between_steps):
        for step in range(1, int(steps) + 1):
            time.sleep(float(seconds))
            between_steps(step)
            if step == max(1, int(steps) // 2):
                misbehave(planted.get(str(order.number), ""))
        values = {"accuracy": accuracy(order.number), "loss": 1.0, "trainable_parameters": 1}
        values |= {"train_seconds": 0.1, "evaluate_seconds": 0.1}
        return Measurement(order.rung, values, ((1, 1.0),), (1, 0)), {"data": "stub"}

    Child(incoming, outgoing, evaluate).serve({"torch": "none"})


def accuracy(number):
    return 0.5 + number / 1000


def misbehave(fault):
    if fault == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "exit":
        print("last words", file=sys.stderr, flush=True)
        os._exit(3)
    if fault == "hang":
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
