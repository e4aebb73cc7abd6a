"""The study, the proposals and the databases that the benchmarks of the record are run on."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autopeft.budget import Budget
from autopeft.study import PARAMETERS, Direction, Fidelity, ModelSpec, Objective, Origin, Proposal, Study
from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise

ROLES = ("query", "key", "value", "output", "up", "down")


def backbone(layers: int = 6) -> Backbone:
    def layer(index: int) -> tuple[ModuleShape, ...]:
        return tuple(ModuleShape(role, f"layer.{index}.{role}", 384, 384) for role in ROLES)

    return Backbone("bench", "bert", 384, 22_713_216, tuple(layer(index) for index in range(layers)))


def study() -> Study:
    shapes = backbone()
    return Study(
        name="bench",
        model=ModelSpec("bench", "mean", "0" * 64),
        backbone=shapes,
        task={"source": "aspects"},
        task_name="bench",
        metric="accuracy",
        quality_floor=0.5,
        space=layerwise(shapes, (1e-4, 1e-2)),
        objectives=(Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
        budget=Budget(10_000_000, "10m"),
        fidelity=Fidelity(2, 4, 16),
        control_learning_rate=1e-3,
        proposer="random",
        initial_count=2,
        trials=10_000,
        hours=None,
        seed=0,
    )


def proposals(count: int, start: int = 0) -> list[Proposal]:
    shapes = backbone()
    found = []
    for index in range(start, start + count):
        block, step = divmod(index, 5000)
        plan = uniform(shapes, ("query", "value"), Lora(1 + block, 16.0), round(1e-3 + 1e-6 * step, 6))
        found.append(Proposal(plan, Origin.MODEL))
    return found


@contextmanager
def databases() -> Iterator[Callable[[str], dict[str, str]]]:
    """Makes empty databases: dialect → address, for the name of each."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            import pgserver
            import psycopg

            server = pgserver.get_server(str(Path(folder) / "pg"))
        except ImportError:
            server = None

        def make(name: str) -> dict[str, str]:
            found = {"sqlite": f"sqlite:///{folder}/{name}.db"}
            if server is not None:
                with psycopg.connect(server.get_uri(), autocommit=True) as connection:
                    connection.execute(f"CREATE DATABASE {name}")
                address = server.get_uri(name).replace("postgresql://", "postgresql+psycopg://")
                found["postgresql"] = address
            return found

        try:
            yield make
        finally:
            if server is not None:
                server.cleanup()
