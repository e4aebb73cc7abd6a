"""Evaluates orders in this very process, on a resident backbone: what a child does, and what a debugger can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autopeft.errors import AutopeftError, EvaluationError
from autopeft.settings import CacheMode
from autopeft.study import Measurement, Order
from workers.backbones import Resident, Residents, open_device
from workers.evaluate import evaluate
from workers.failures import Unusable
from workers.room import require_room_for, usable_bytes


class Inside:
    """Evaluates in this process.

    Args:
        device: ``cpu`` or ``cuda:N``.
        artifacts: Root folder of artifacts.
        cache: How hidden states are kept; None: as each study says.

    Raises:
        EvaluationError: If there is no such device.
    """

    def __init__(self, device: str, artifacts: Path, cache: CacheMode | None = None) -> None:
        self._residents = Residents(open_device(device), cache)
        self._artifacts = artifacts

    def start(self) -> Mapping[str, str]:
        """Nothing to wait for, and nothing to add to what the worker knows of itself."""
        return {}

    def measure(self, order: Order, between_steps: Callable[[int], None]) -> tuple[Measurement, Mapping[str, str]]:
        """The measurement of ``order``, and the hashes of backbone and data that it rests on.

        Raises:
            Unusable: If the model or the task cannot be loaded.
            EvaluationError: If the trial is predicted not to fit, before anything is loaded; or if it changed the
                backbone, which is loaded anew for the next.
            AutopeftError: If the trial fails, or ``between_steps`` ends it.
        """
        self._require_room(order)
        resident = self._resident_of(order)
        try:
            measurement = evaluate(order, resident, self._artifacts, between_steps)
        finally:
            changed = resident.changed
            if changed:
                self._residents.forget()
        if changed:
            raise EvaluationError(f"the trial changed frozen weights of the backbone: {', '.join(changed[:3])}")
        return measurement, rests_on(order, resident)

    def evaluate(self, order: Order, check: Callable[[], None]) -> tuple[Measurement, Mapping[str, str]]:
        """As ``measure``, with ``check`` called between the steps."""
        return self.measure(order, lambda _steps: check())

    def close(self) -> None:
        """Nothing to end."""

    def _require_room(self, order: Order) -> None:
        usable = usable_bytes(self._residents.device, order.study.regime.gpus)
        require_room_for(order.study, order.configuration, usable, f"trial {order.number} was not begun")

    def _resident_of(self, order: Order) -> Resident:
        try:
            return self._residents.of(order.study)
        except AutopeftError as error:
            raise Unusable(error) from error


def rests_on(order: Order, resident: Resident) -> dict[str, str]:
    """What a measurement of ``order`` rests on beside what the worker is: hashes of backbone and data, and how."""
    return {
        **order.study.regime.fingerprint(order.study.model.load_in),
        "backbone": order.study.model.sha256,
        "data": resident.task.data_sha256,
        "states": "fp16" if resident.states.mode is CacheMode.FP16 else "exact",
    }
