"""The child: keeps the backbone resident and trains order after order; it knows no database.

It ends with its supervisor: at once when the system says so, else when the pipe closes. Signals to stop are the
supervisor's to obey, who asks for what is at hand to be given up.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from autopeft.errors import AutopeftError
from autopeft.settings import cache_mode
from autopeft.study import Measurement, Order
from workers.failures import Unusable, failure_of
from workers.pipe import Lines, given_up, measurement_to_json, order_from_json, send
from workers.stopping import Preempted

TELL_SECONDS = 0.5
"""Steps are told at most so often."""

_PR_SET_PDEATHSIG = 1

Tell = Callable[[int], None]
Evaluate = Callable[[Order, Tell], tuple[Measurement, Mapping[str, str]]]
"""An order and what to call between its steps → its measurement, and what that rests on; raises ``Unusable`` if
nothing can be measured here."""


def stay_with(parent: int) -> None:
    """Makes this process end with its supervisor, and deaf to the signals that are the supervisor's.

    SIGUSR2 writes where every thread stands to standard error: what is known of a trial that hangs.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit(0)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True, chain=False)


def own_pipe() -> tuple[int, int]:
    """Descriptors to read orders from and to answer on; what libraries print goes to standard error instead."""
    incoming, outgoing = os.dup(0), os.dup(1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    return incoming, outgoing


class Together(Protocol):
    """Trains several orders at once."""

    def measure_together(
        self,
        orders: Sequence[Order],
        tell: Callable[[Order, tuple[Measurement, Mapping[str, str]] | Exception], None],
        watch: Callable[[int], Mapping[tuple[int, int], bool]],
    ) -> None:
        """Tells of each order what came of it; ``watch`` says who is to leave, and whether somebody will go on."""


class Child:
    """Serves orders until the pipe closes.

    Args:
        incoming: Descriptor that orders come from.
        outgoing: Descriptor that answers go to.
        evaluate: Trains one order.
        together: Trains several at once; None: nobody will ask for that.
    """

    def __init__(self, incoming: int, outgoing: int, evaluate: Evaluate, together: Together | None = None) -> None:
        self._lines = Lines(incoming)
        self._outgoing = outgoing
        self._evaluate = evaluate
        self._together = together
        self._asked: dict[tuple[int, int], bool] = {}
        self._attempt: tuple[int, int] | None = None
        self._told = 0.0

    def serve(self, environment: Mapping[str, str]) -> None:
        """Says what this process is, and then answers every order."""
        self._say({"ready": dict(environment)})
        while (message := self._lines.read(None)) is not None:
            if "order" in message:
                self._say(self._answer(order_from_json(message["order"])))
            elif "pack" in message and self._together is not None:
                self._answer_each(self._together, [order_from_json(order) for order in message["pack"]])

    def _answer(self, order: Order) -> Mapping[str, Any]:
        self._attempt, self._told = order.key, 0.0
        try:
            found = self._evaluate(order, self._between_steps)
        except Exception as error:
            return _answer_of(error)
        return _answer_of(found)

    def _answer_each(self, together: Together, orders: Sequence[Order]) -> None:
        """Trains a pack; each answer says of which order it is, and the last message that all have been given."""
        self._asked, self._told = {}, 0.0
        together.measure_together(
            orders, lambda order, found: self._say({"of": order.key, **_answer_of(found)}), self._who_leaves
        )
        self._say({"pack": "done"})

    def _who_leaves(self, steps: int) -> Mapping[tuple[int, int], bool]:
        self._tell_step(steps)
        while (message := self._lines.read(0)) is not None:
            if "give_up" in message:
                trial_id, attempt = message["give_up"]
                self._asked[trial_id, attempt] = bool(message["keep"])
        if self._lines.closed:
            os._exit(0)  # the supervisor is gone: nobody wants what comes of this
        return self._asked

    def _tell_step(self, steps: int) -> None:
        now = time.monotonic()
        if now - self._told >= TELL_SECONDS:
            self._told = now
            self._say({"step": steps})

    def _between_steps(self, steps: int) -> None:
        self._tell_step(steps)
        message = self._lines.read(0)
        if self._lines.closed:
            os._exit(0)  # the supervisor is gone: nobody wants what comes of this
        if message is not None and message.get("give_up") == list(self._attempt or ()):
            raise Preempted("the supervisor gave the trial up", keep=message["keep"])

    def _say(self, message: Mapping[str, Any]) -> None:
        try:
            send(self._outgoing, message)
        except OSError:
            os._exit(0)


def _answer_of(found: tuple[Measurement, Mapping[str, str]] | Exception) -> Mapping[str, Any]:
    """What is said of an order: what was measured and what that rests on, or why nothing was."""
    if isinstance(found, Preempted):
        return given_up(found.checkpoint)
    if isinstance(found, Unusable):
        return {"unusable": type(found.cause).__name__, "reason": str(found.cause)}
    if isinstance(found, Exception):
        failure = failure_of(found)
        return {"failure": failure.kind.value, "reason": failure.reason, "trace": failure.trace}
    measurement, environment = found
    return {"measurement": measurement_to_json(measurement), "environment": dict(environment)}


def run_child(device: str, threads: int, artifacts: Path, parent: int, cache: str | None = None) -> None:
    """The life of a real child: torch, a resident backbone, adapters in and out."""
    stay_with(parent)
    incoming, outgoing = own_pipe()
    from workers.environment import fingerprint, prepare

    prepare(threads)
    _keep_to_its_share(device)
    from workers.pack.inside import PackInside

    try:
        inside = PackInside(device, artifacts, None if cache is None else cache_mode(cache))
    except AutopeftError as error:
        send(outgoing, {"unusable": type(error).__name__, "reason": str(error)})
        return
    Child(incoming, outgoing, inside.measure, inside).serve(fingerprint(device))


def _keep_to_its_share(device: str) -> None:
    """Caps the memory of a worker that shares its GPU: an engine's fraction is accounting only."""
    share = os.environ.get("AUTOPEFT_GPU_FRACTION")
    if share and device.startswith("cuda"):
        import torch

        torch.cuda.set_per_process_memory_fraction(float(share), torch.device(device))
