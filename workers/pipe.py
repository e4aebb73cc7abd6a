"""The words between a supervisor and its child: JSON, one line each; nothing in them is ever executed.

::

    supervisor → child    {"order": …} · {"give_up": [trial id, attempt], "keep": whether somebody will go on}
                          {"pack": orders}
    child → supervisor    {"ready": environment} · {"step": n} · {"measurement": …, "environment": …}
                          {"failure": kind, "reason": …, "trace": …} · {"given_up": true, "checkpoint": … or null}
                          {"unusable": class of the error, "reason": …} · {"pack": "done"}

An answer ends an order; of a pack each says whose it is (``"of": [trial id, attempt]``), and all come before its end.
Steps are told at most a few times a second.
"""

from __future__ import annotations

import json
import os
import select
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from autopeft.study import Checkpoint, Measurement, Order, Study
from search_spaces.configuration import Configuration

_CHUNK = 1 << 16

Message = Mapping[str, Any]


class Lines:
    """Messages that come in on a file descriptor.

    Args:
        descriptor: Read end of a pipe.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._rest = b""
        self._waiting: deque[Message] = deque()
        self.closed = False

    def read(self, timeout: float | None) -> Message | None:
        """The next message; None if there is none within ``timeout`` seconds (None: wait) or the pipe is closed."""
        while not self._waiting and not self.closed:
            if not select.select([self._descriptor], [], [], timeout)[0]:
                return None
            self._take(os.read(self._descriptor, _CHUNK))
        return self._waiting.popleft() if self._waiting else None

    def _take(self, chunk: bytes) -> None:
        if not chunk:
            self.closed = True
            return
        *whole, self._rest = (self._rest + chunk).split(b"\n")
        self._waiting.extend(json.loads(line) for line in whole if line.strip())


def send(descriptor: int, message: Message) -> None:
    """Writes one message whole.

    Raises:
        OSError: If nobody reads any more.
    """
    data = json.dumps(message, allow_nan=False).encode() + b"\n"
    while data:
        data = data[os.write(descriptor, data) :]


def order_to_json(order: Order) -> dict[str, Any]:
    """Plain values that ``order_from_json`` reads back."""
    return {
        "trial_id": order.trial_id,
        "attempt": order.attempt,
        "number": order.number,
        "study": order.study.to_json(),
        "configuration": order.configuration.to_json(),
        "replicate": order.replicate,
        "rung": order.rung,
        "checkpoints": [asdict(checkpoint) for checkpoint in order.checkpoints],
        "memory_failures": order.memory_failures,
        "costs": None if order.costs is None else dict(order.costs),
    }


def order_from_json(data: Mapping[str, Any]) -> Order:
    """The order that ``order_to_json`` wrote."""
    study, configuration = Study.from_json(data["study"]), Configuration.from_json(data["configuration"])
    checkpoints = tuple(Checkpoint(**checkpoint) for checkpoint in data["checkpoints"])
    return Order(**{**data, "study": study, "configuration": configuration, "checkpoints": checkpoints})


def given_up(checkpoint: Checkpoint | None) -> Message:
    """The answer to an order that was given up, perhaps with where it stands."""
    return {"given_up": True, "checkpoint": None if checkpoint is None else asdict(checkpoint)}


def checkpoint_of(answer: Message) -> Checkpoint | None:
    """Where the trial stands that ``answer`` gave up, if that was written."""
    found = answer.get("checkpoint")
    return None if found is None else Checkpoint(**found)


def measurement_to_json(measurement: Measurement) -> dict[str, Any]:
    """Plain values that ``measurement_from_json`` reads back."""
    return {
        "rung": measurement.rung,
        "values": dict(measurement.values),
        "curve": [list(point) for point in measurement.curve],
        "correct": list(measurement.correct),
        "artifact": measurement.artifact,
        "sha256": measurement.sha256,
        "details": dict(measurement.details),
    }


def measurement_from_json(data: Mapping[str, Any]) -> Measurement:
    """The measurement that ``measurement_to_json`` wrote."""
    curve = tuple((int(step), float(loss)) for step, loss in data["curve"])
    return Measurement(**{**data, "curve": curve, "correct": tuple(data["correct"])})
