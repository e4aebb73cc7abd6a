"""The supervisor's hold on a child that trains packs: several orders at once, each of which ends by itself.

A member that is given up is asked to leave and leaves at its next step; the others go on. Only where the whole pack was
given up and does not listen is the child killed. What kills the child is told of every member that had not ended.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence

from autopeft.errors import LeaseLostError
from autopeft.store.blame import Failure
from autopeft.study import Measurement, Order
from workers.failures import TrialFailure, Unusable
from workers.pipe import Message, order_to_json
from workers.stopping import Preempted
from workers.supervisor import (
    GIVE_UP_SECONDS,
    LOOK_SECONDS,
    ChildProcess,
    Died,
    Progress,
    Supervised,
    death,
    out_of_memory_kills,
    read_answer,
)

Outcome = tuple[Measurement, Mapping[str, str]] | Exception
"""What was measured and what that rests on, or why nothing was."""

Stopped = dict[tuple[int, int], Preempted | LeaseLostError]
"""Why orders were given up, by their keys."""


class PackSupervised(Supervised):
    """Evaluates in a child, several orders at once too. Arguments: ``Supervised``."""

    def evaluate_together(
        self, orders: Sequence[Order], check: Callable[[Order], None], tell: Callable[[Order, Outcome], None]
    ) -> None:
        """Has ``orders`` trained at once, and tells of each what came of it as soon as it has ended.

        Args:
            orders: What to train.
            check: Called ten times a second for each order that has not ended; what it raises gives that trial up.
            tell: Told of each order once.

        Raises:
            Unusable: If no child can be started.
        """
        child, open_orders = self._living(), {order.key: order for order in orders}
        stopped: Stopped = {}

        def ended(order: Order, outcome: Outcome) -> None:
            del open_orders[order.key]
            tell(order, stopped.get(order.key, outcome) if isinstance(outcome, TrialFailure) else outcome)

        killed_before = out_of_memory_kills()
        try:
            child.say({"pack": [order_to_json(order) for order in orders]})
            failure: Outcome | None = self._await_pack(child, open_orders, stopped, check, ended)
        except Died:
            self._child = None
            failure = death(child, killed_before)
        for order in list(open_orders.values()):
            assert failure is not None
            ended(order, failure)

    def _await_pack(
        self,
        child: ChildProcess,
        waiting: Mapping[tuple[int, int], Order],
        stopped: Stopped,
        check: Callable[[Order], None],
        ended: Callable[[Order, Outcome], None],
    ) -> TrialFailure | None:
        """Hears the child until its pack is done; if it had to be killed, what that is to who has no answer."""
        progress, deadline = Progress(self._hang_seconds, self._load_seconds), math.inf
        while True:
            message = child.lines.read(LOOK_SECONDS)
            if message is None and child.lines.closed:
                raise Died
            if message is not None and "pack" in message:
                return None
            if message is not None and "step" in message:
                progress.made(message["step"])
            elif message is not None:
                progress.made(progress.steps)  # an answer shows that it lives
                order = waiting[tuple(message["of"])]
                ended(order, _outcome_of(message, stopped.get(order.key)))
            if progress.hangs:
                return self._hang(child, progress)
            for order in [order for key, order in waiting.items() if key not in stopped]:
                _ask_to_leave(child, order, stopped, check)
            if waiting and set(waiting) <= set(stopped) and deadline == math.inf:
                deadline = time.monotonic() + GIVE_UP_SECONDS
            if waiting and time.monotonic() > deadline:
                child.kill()
                self._child = None
                return TrialFailure(Failure.LOST, "the pack was given up")


def _ask_to_leave(
    child: ChildProcess,
    order: Order,
    stopped: Stopped,
    check: Callable[[Order], None],
) -> None:
    """Asks the child to let one member of its pack go, if ``check`` says so; it answers when it has."""
    try:
        check(order)
    except (Preempted, LeaseLostError) as error:
        stopped[order.key] = error
        child.say({"give_up": list(order.key), "keep": isinstance(error, Preempted) and error.keep})


def _outcome_of(answer: Message, stopped: Preempted | LeaseLostError | None) -> Outcome:
    """What an answer of a pack says of its order; why it was given up is known here alone."""
    if isinstance(stopped, LeaseLostError):
        return stopped
    try:
        return read_answer(answer)
    except Preempted as given:
        if stopped is not None:
            stopped.checkpoint = given.checkpoint
        return stopped or given
    except (TrialFailure, Unusable) as error:
        return error
