"""Does the verdict keep its promise? Simulated searches with known truth, whose noise is that of real repeats.

``record`` takes from a study every configuration that was trained with several seeds: correctness of each validation
row, in a compact table. ``replay`` invents searches from it: the true quality of every configuration is given, and what
is measured is that plus noise as it was recorded: effects of a replicate on all runs, residues of single runs, and rows
that are hard for all, drawn anew with replacement. It prints how often intervals hold the truth, how often *better* is
said where nothing is, and how often a planted difference is found.
"""

from __future__ import annotations

import argparse
import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autopeft import pareto, verdict
from autopeft.picking import Candidate
from autopeft.precision import Noise, estimate, interaction_noise, turned_share
from autopeft.verdict import Answer, Contender, Gap, judge

Array = NDArray[np.float64]
SCHEMA = "autopeft.repeats/1"
TABLE = Path(__file__).parent / "repeats.json"
"""Of ``aspects`` at 50 steps, where luck decides; beside it ``repeats_hwu64.json``, where it does not."""


@dataclass(frozen=True)
class Repeats:
    """Configurations that were trained with several seeds.

    Attributes:
        costs: Trained parameters, shape [k].
        marks: Correctness by configuration and replicate, shape [k, r, rows].
        floor: Quality of guessing.
        budget: Of the study.
    """

    costs: tuple[int, ...]
    marks: NDArray[np.bool_]
    floor: float
    budget: int

    @property
    def scores(self) -> Array:
        """Quality of every run, shape [k, r]."""
        scores: Array = self.marks.mean(axis=2)
        return scores

    @property
    def orders(self) -> Array:
        """What each replicate does to all configurations alike, shape [r]."""
        orders: Array = self.scores.mean(axis=0) - self.scores.mean()
        return np.asarray(orders * np.sqrt(len(orders) / (len(orders) - 1)))

    @property
    def residues(self) -> Array:
        """What is each run's own, of the size that unbiased estimates have, shape [k r]."""
        scores, (k, r) = self.scores, self.scores.shape
        own = scores - scores.mean(axis=1, keepdims=True) - (scores.mean(axis=0, keepdims=True) - scores.mean())
        residues: Array = own.ravel() * np.sqrt(k * r / ((k - 1) * (r - 1)))
        return residues

    @classmethod
    def from_json(cls, data: Mapping[str, object]) -> Repeats:
        """The table that ``to_json`` wrote."""
        if data.get("schema") != SCHEMA:
            raise SystemExit(f"table schema {data.get('schema')!r}: expected {SCHEMA!r}")
        rows, runs = int(str(data["rows"])), data["runs"]
        assert isinstance(runs, list)
        packed = [[np.frombuffer(base64.b64decode(text), np.uint8) for text in one["marks"]] for one in runs]
        marks = np.unpackbits(np.array(packed), axis=2)[:, :, :rows].astype(bool)
        costs = tuple(int(one["parameters"]) for one in runs)
        return cls(costs, marks, float(str(data["floor"])), int(str(data["budget"])))

    def to_json(self) -> dict[str, object]:
        """Plain values; eight rows a byte."""
        runs = [
            {
                "parameters": cost,
                "marks": [base64.b64encode(np.packbits(run).tobytes()).decode() for run in of_one],
            }
            for cost, of_one in zip(self.costs, self.marks, strict=True)
        ]
        rows = self.marks.shape[2]
        return {"schema": SCHEMA, "rows": rows, "floor": self.floor, "budget": self.budget, "runs": runs}


def record(database: str, study: str | None) -> Repeats:
    """The repeats in ``study``: of each configuration as many runs as every one of them has."""
    from autopeft.store.overlook import Overlook
    from autopeft.study import PARAMETERS, TrialState

    with Overlook.open(database) as reader:
        asked = reader.study(study)
        done = [one for one in reader.glances(asked.name) if one.state is TrialState.COMPLETE]
        marks = reader.marks(asked.name, [one.number for one in done])
    groups: dict[str, list[tuple[int, int]]] = {}
    for one in done:
        groups.setdefault(one.digest, []).append((one.replicate, one.number))
    repeated = {digest: sorted(runs) for digest, runs in groups.items() if len(runs) > 1}
    if len(repeated) < 2:
        raise SystemExit(f"{asked.name}: fewer than two configurations were trained twice; autopeft confirm does that")
    shared = set.intersection(*({replicate for replicate, _ in runs} for runs in repeated.values()))
    table = [[marks[number] for replicate, number in runs if replicate in shared] for runs in repeated.values()]
    cost = {one.digest: int(one.values[PARAMETERS]) for one in done}
    costs = tuple(cost[digest] for digest in repeated)
    return Repeats(costs, np.array(table, dtype=bool), asked.quality_floor, asked.budget.parameters)


@dataclass(frozen=True)
class Search:
    """One invented search: what is true, and what its verdict says."""

    truth: float
    gap: Gap


@dataclass(frozen=True)
class Replay:
    """Searches whose front is the control itself, or is better than it by a planted difference.

    Attributes:
        repeats: The recorded noise.
        fresh: Runs of each configuration that the verdict has; the control's first runs come on top.
        rows: Validation rows.
        planted: True difference of hypervolumes.
        share: Of the recorded effects of orders and residues that is replayed: longer training varies less.
    """

    repeats: Repeats
    fresh: int
    rows: int
    planted: float
    share: float = 1.0

    @property
    def scale(self) -> pareto.Scale:
        """What hypervolumes are measured in."""
        return pareto.Scale(self.repeats.floor, min(self.repeats.costs) // 2, self.repeats.budget)

    def volume(self, qualities: Sequence[float]) -> float:
        """The hypervolume of the configurations at these qualities."""
        return pareto.hypervolume(list(zip(qualities, self.repeats.costs, strict=True)), self.scale.box)

    def truths(self) -> tuple[Array, Array]:
        """(front, control): the control's qualities are the recorded means, the front's lie so far above them."""
        control = self.repeats.scores.mean(axis=1)
        low, high = 0.0, 1 - float(control.max())
        for _ in range(50):
            middle = (low + high) / 2
            found = self.volume(list(control + middle)) - self.volume(list(control))
            low, high = (middle, high) if found < self.planted else (low, middle)
        return control + (low if self.planted else 0.0), control

    def search(self, generator: np.random.Generator) -> Search:
        """One search and its verdict."""
        front, control = self.truths()
        rows = generator.integers(self.repeats.marks.shape[2], size=self.rows)
        orders = self.share * generator.choice(self.repeats.orders, size=self.fresh + 1)
        ours = [self._runs(i, true, rows, orders, range(1, self.fresh + 1), generator) for i, true in enumerate(front)]
        theirs = [self._runs(i, true, rows, orders, range(self.fresh + 1), generator) for i, true in enumerate(control)]
        runs = [{r: float(run.mean()) for r, run in one.items()} for one in (*ours, *theirs)]
        marks = [[run.astype(int).tolist() for run in one.values()] for one in (*ours, *theirs)]
        noise = replace(interaction_noise(runs), turned=turned_share(marks))
        sides = [[self._contender(number, runs, noise) for number, runs in enumerate(side)] for side in (ours, theirs)]
        found = judge(sides[0], sides[1], self.scale.box, self.repeats.budget, noise, generator)
        return Search(self.volume(list(front)) - self.volume(list(control)), found.hypervolume)

    def _runs(
        self,
        index: int,
        true: float,
        rows: NDArray[np.int64],
        orders: Array,
        replicates: Sequence[int],
        generator: np.random.Generator,
    ) -> dict[int, NDArray[np.bool_]]:
        """Marks by replicate: a recorded run on the drawn rows, moved to the quality that it has here."""
        found = {}
        for replicate in replicates:
            wanted = true + orders[replicate] + self.share * generator.choice(self.repeats.residues)
            recorded = self.repeats.marks[index, generator.integers(self.repeats.marks.shape[1])]
            found[replicate] = _moved(recorded, float(np.clip(wanted, 0.02, 0.98)), generator)[rows]
        return found

    def _contender(self, number: int, runs: Mapping[int, NDArray[np.bool_]], noise: Noise) -> Contender:
        fresh = [run.astype(int).tolist() for replicate, run in runs.items() if replicate]
        quality = estimate([float(np.mean(run)) for run in fresh], fresh, noise)
        cost = self.repeats.costs[number]
        return Contender(Candidate(number, (quality.mean, float(cost)), quality), cost)


def _moved(marks: NDArray[np.bool_], wanted: float, generator: np.random.Generator) -> NDArray[np.bool_]:
    """``marks`` with as few turned, at random, as bring their share of right ones to ``wanted``."""
    share = float(marks.mean())
    turned = generator.random(len(marks))
    if wanted >= share:
        return marks | (turned < (wanted - share) / (1 - share))
    return marks & ~(turned < (share - wanted) / share)


def summary(searches: Sequence[Search]) -> dict[str, float]:
    """Shares of the searches: interval holds the truth, *better*, *worse*; median width of an interval, mean error."""
    gaps = [one.gap for one in searches]
    return {
        "covered": float(np.mean([one.gap.low <= one.truth <= one.gap.high for one in searches])),
        "better": float(np.mean([gap.answer is Answer.BETTER for gap in gaps])),
        "worse": float(np.mean([gap.answer is Answer.WORSE for gap in gaps])),
        "width": float(np.median([gap.high - gap.low for gap in gaps])),
        "off": float(np.mean([one.gap.value - one.truth for one in searches])),
    }


def simulate(replay: Replay, count: int, seed: int = 0) -> list[Search]:
    """``count`` searches, each with a generator of its own."""
    return [replay.search(np.random.default_rng([seed, number])) for number in range(count)]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="a table of the repeats in a study")
    recording.add_argument("database")
    recording.add_argument("--study")
    recording.add_argument("--output", type=Path, default=TABLE)
    replaying = commands.add_parser("replay", help="searches with noise from a table")
    replaying.add_argument("--table", type=Path, default=TABLE)
    replaying.add_argument("--searches", type=int, default=200)
    replaying.add_argument("--planted", type=float, nargs="+", default=[0.0, 0.03])
    replaying.add_argument("--fresh", type=int, nargs="+", default=[1, 3, 5])
    replaying.add_argument("--rows", type=int, nargs="+", default=[600, 3000])
    replaying.add_argument("--share", type=float, default=1.0, help="of the recorded noise between runs")
    replaying.add_argument("--draws", type=int, default=verdict.DRAWS, help="of the bootstrap; fewer are quicker")
    given = parser.parse_args()
    if given.command == "record":
        repeats = record(given.database, given.study)
        given.output.write_text(json.dumps(repeats.to_json(), indent=1) + "\n")
        print(f"{len(repeats.costs)} configurations with {repeats.marks.shape[1]} runs each in {given.output}")
        return
    verdict.DRAWS = given.draws
    repeats = Repeats.from_json(json.loads(given.table.read_text()))
    print(f"recorded: order {repeats.orders.std():.4f}, residues {repeats.residues.std():.4f} (standard deviations)")
    print("planted  fresh   rows   covered   better    worse    width      off")
    for planted in given.planted:
        for fresh in given.fresh:
            for rows in given.rows:
                said = summary(simulate(Replay(repeats, fresh, rows, planted, given.share), given.searches))
                shares = "   ".join(f"{said[name]:6.1%}" for name in ("covered", "better", "worse"))
                print(f"{planted:7.3f}  {fresh:5}  {rows:5}   {shares}   {said['width']:6.3f}   {said['off']:+.4f}")


if __name__ == "__main__":
    main()
