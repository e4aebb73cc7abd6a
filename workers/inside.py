"""Evaluates orders in this very process, on a resident backbone: what a child does, and what a debugger can follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from autopeft.errors import AutopeftError
from autopeft.study import Measurement, Order
from workers.backbones import Residents, open_device
from workers.evaluate import evaluate
from workers.failures import Unusable


class Inside:
    """Evaluates in this process.

    Args:
        device: ``cpu`` or ``cuda:N``.
        artifacts: Root folder of artifacts.

    Raises:
        EvaluationError: If there is no such device.
    """

    def __init__(self, device: str, artifacts: Path) -> None:
        self._residents = Residents(open_device(device))
        self._artifacts = artifacts

    def start(self) -> Mapping[str, str]:
        """Nothing to wait for, and nothing to add to what the worker knows of itself."""
        return {}

    def measure(self, order: Order, between_steps: Callable[[int], None]) -> tuple[Measurement, Mapping[str, str]]:
        """The measurement of ``order``, and the hashes of backbone and data that it rests on.

        Raises:
            Unusable: If the model or the task cannot be loaded.
            AutopeftError: If the trial fails, or ``between_steps`` ends it.
        """
        try:
            resident = self._residents.of(order.study)
        except AutopeftError as error:
            raise Unusable(error) from error
        measurement = evaluate(order, resident, self._artifacts, between_steps)
        return measurement, {"backbone": order.study.model.sha256, "data": resident.task.data_sha256}

    def evaluate(self, order: Order, check: Callable[[], None]) -> tuple[Measurement, Mapping[str, str]]:
        """As ``measure``, with ``check`` called between the steps."""
        return self.measure(order, lambda _steps: check())

    def close(self) -> None:
        """Nothing to end."""
