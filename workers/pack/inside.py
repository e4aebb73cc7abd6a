"""Evaluates packs in this very process: what a child does with several orders, and what a debugger can follow."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from autopeft.errors import EvaluationError, LeaseLostError, OutOfMemoryError
from autopeft.study import Measurement, Order
from workers.backbones import Resident
from workers.inside import Inside, rests_on
from workers.pack.evaluate import Answer, evaluate_pack
from workers.pack.pack import Key, Watch
from workers.pack.room import parted
from workers.room import usable_bytes
from workers.stopping import Preempted

Outcome = tuple[Measurement, Mapping[str, str]] | Exception
"""What was measured and what that rests on, or why nothing was."""

Tell = Callable[[Order, Outcome], None]

_log = logging.getLogger("autopeft.worker")


class PackInside(Inside):
    """Evaluates in this process, several orders at once too. Arguments: ``Inside``."""

    def measure_together(self, orders: Sequence[Order], tell: Tell, watch: Watch) -> None:
        """Trains ``orders`` in as few packs as are predicted to fit.

        Where there is not enough memory for a pack after all, those of it that have not ended are trained alone.

        Args:
            orders: Of one study and replicate, each of which ``why_alone`` says nothing of.
            tell: Told of each order once, as soon as it has ended.
            watch: Asked again and again who is to leave, and whether somebody will go on with the trial.
        """
        for pack in parted(orders, usable_bytes(self._residents.device)):
            if len(pack) == 1:
                self._alone(pack[0], tell, watch)
            else:
                self._together(pack, tell, watch)

    def evaluate_together(self, orders: Sequence[Order], check: Callable[[Order], None], tell: Tell) -> None:
        """``measure_together`` for the worker's loop: what ``check`` raises of an order gives that trial up."""
        stopped: dict[Key, Preempted | LeaseLostError] = {}

        def watch(_steps: int) -> Mapping[Key, bool]:
            for order in orders:
                try:
                    check(order)
                except (Preempted, LeaseLostError) as error:
                    stopped.setdefault(order.key, error)
            return {key: isinstance(error, Preempted) and error.keep for key, error in stopped.items()}

        def told(order: Order, outcome: Outcome) -> None:
            lost = stopped.get(order.key)
            tell(order, lost if isinstance(lost, LeaseLostError) and isinstance(outcome, Preempted) else outcome)

        self.measure_together(orders, told, watch)

    def _together(self, pack: Sequence[Order], tell: Tell, watch: Watch) -> None:
        waiting = {order.key: order for order in pack}

        def told(order: Order, outcome: Outcome) -> None:
            del waiting[order.key]
            tell(order, outcome)

        try:
            resident = self._resident_of(pack[0])

            def answered(order: Order, answer: Answer) -> None:
                told(order, self._of(order, answer, resident))

            evaluate_pack(pack, resident, self._artifacts, answered, watch)
        except OutOfMemoryError as error:
            _log.warning("%d trials together: %s; each goes on alone", len(pack), error)
            for order in list(waiting.values()):
                self._alone(order, told, watch)
        except Exception as error:
            for order in list(waiting.values()):
                told(order, error)

    def _alone(self, order: Order, tell: Tell, watch: Watch) -> None:
        def between_steps(steps: int) -> None:
            asked = watch(steps)
            if order.key in asked:
                raise Preempted("the trial was given up", keep=asked[order.key])

        try:
            found: Outcome = self.measure(order, between_steps)
        except Exception as error:
            found = error
        tell(order, found)

    def _of(self, order: Order, answer: Answer, resident: Resident) -> Outcome:
        """The answer, unless the backbone has changed: what was measured on that is no measurement."""
        if isinstance(answer, Exception):
            return answer
        if changed := resident.changed:
            self._residents.forget()
            return EvaluationError(f"the pack changed frozen weights of the backbone: {', '.join(changed[:3])}")
        return answer, rests_on(order, resident)
