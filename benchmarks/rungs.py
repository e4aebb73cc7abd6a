"""What rungs save and what they cost: a table of real trials measured at every rung, and searches replayed over it.

    python benchmarks/rungs.py record --output table.json --count 40
    python benchmarks/rungs.py replay table.json --seeds 5 --trials 16 --fidelity 1/4,1/2

``record`` trains configurations of the default search in full, once each, and scores them on the way; what is in the
table already is kept. ``replay`` searches the table with the real proposer and the real promotions, on simulated
workers that take the recorded processor seconds: equally many trials started, with rungs and without. A proposal is the
nearest row of the table (``replay.TableFamily``). Rungs of the replay have to be among those recorded.
"""

from __future__ import annotations

import argparse
import heapq
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from known_front import QUALITY
from replay import TableFamily, point_of

from autopeft import rungs
from autopeft.api import prepare
from autopeft.fidelity import ladder_of
from autopeft.optimizer import make_proposer
from autopeft.optimizer.demands import Demands, LowerRung
from autopeft.pareto import hypervolume
from autopeft.scales import scale
from autopeft.settings import SearchSettings
from autopeft.study import PARAMETERS, Observation, Order, Origin, Study, Trial, TrialState
from search_spaces.cost import trainable_parameters

RECORDED = "1/8,1/4,1/2"


def record(table: Path, count: int) -> None:
    """Trains what is not in ``table`` yet; the table is whole after every trial."""
    import torch

    from workers.backbones import load_resident
    from workers.evaluate import begun
    from workers.scoring import score_rows

    torch.set_num_threads(1)
    study = prepare(SearchSettings(fidelity="full", space="layerwise"), ()).study
    steps = (*ladder_of(RECORDED, study.fidelity.steps), study.fidelity.steps)
    resident = load_resident(study, torch.device("cpu"))
    found = json.loads(table.read_text()) if table.exists() else {"study": study.to_json(), "trials": []}
    found["ladder"] = list(steps)
    generator = np.random.default_rng(study.seed)
    proposer = make_proposer("sobol", count, study.seed)
    plans = proposer.propose(study.search_space, scale(study), study.objectives, [], [], count, generator)
    for number, plan in list(enumerate(plans))[len(found["trials"]) :]:
        order = Order(0, 1, number, study, plan, 0, 0)
        measured, before = [], time.process_time()
        with begun(order, resident, Path(), lambda _done: None) as start:
            for until in steps:
                start.run.run(until)
                trained = time.process_time()
                scored = score_rows(resident.classifier, resident.validation, study.metric)
                done = time.process_time()
                seconds = {"train_seconds": trained - before, "evaluate_seconds": done - trained}
                measured.append({"loss": scored.loss, study.metric: scored.value, **seconds})
                before = done
        values = {**measured[-1], PARAMETERS: trainable_parameters(plan, study.backbone)}
        found["trials"].append({"point": study.search_space.encode(plan), "values": values, "rungs": measured})
        table.write_text(json.dumps(found))
        print(number, values[PARAMETERS], *(f"{m[study.metric]:.3f}/{m['loss']:.3f}" for m in measured), flush=True)


class Table:
    """The recorded trials, by the plan that stands for each in the family."""

    def __init__(self, path: Path, seed: int) -> None:
        found = json.loads(path.read_text())
        self.family = TableFamily(seed, 0.0, path)
        self.study = Study.from_json(found["study"])
        self.steps = found["ladder"]
        self.rows = {}
        for row in found["trials"]:
            self.rows[point_of(row)] = row

    def segment(self, plan, fidelity, rung: int) -> tuple[dict[str, float], float]:
        """What a trial shows at ``rung`` and the seconds of getting there from the rung below."""
        row = self.rows[plan.point]
        place = self.steps.index(fidelity.steps_at(rung))
        below = self.steps.index(fidelity.steps_at(rung - 1)) if rung else -1
        trained = sum(one["train_seconds"] for one in row["rungs"][below + 1 : place + 1])
        shown = row["rungs"][place]
        values = {QUALITY.name: shown[self.study.metric], "loss": shown["loss"]}
        return values | {PARAMETERS: row["values"][PARAMETERS]}, trained + shown["evaluate_seconds"]


class Search:
    """A driver and its workers on a clock of their own."""

    def __init__(self, table: Table, fidelity: str, trials: int, workers: int, proposer: str, seed: int) -> None:
        ladder = ladder_of(fidelity, table.study.fidelity.steps)
        self.table, self.seed = table, seed
        self.study = replace(table.study, fidelity=replace(table.study.fidelity, ladder=ladder), trials=trials)
        self.initial = max(4, trials // 3)
        self.proposer = make_proposer(proposer, self.initial, seed)
        self.trials: list[Trial] = []
        self.running: list[tuple[float, int]] = []
        self.now, self.idle, self.spent = 0.0, workers, 0.0

    def run(self) -> tuple[float, float, float]:
        """Hypervolume of the full runs, seconds until the end, and seconds that were worked."""
        while True:
            while self.idle and self._start_one():
                pass
            if not self.running:
                break
            self.now, number = heapq.heappop(self.running)
            self.idle += 1
            self._finish(number)
        done = [trial for trial in self.trials if trial.state is TrialState.COMPLETE]
        points = [(trial.values[QUALITY.name], trial.values[PARAMETERS]) for trial in done]
        return hypervolume(points, self.table.family.scale), self.now, self.spent

    def _start_one(self) -> bool:
        more = len(self.trials) < self.study.trials
        for number in rungs.promotions(self.study, self.trials, more_to_come=more)[:1]:
            self._work(number)
            return True
        if not more:
            return False
        generator = np.random.default_rng([self.seed, len(self.trials)])
        told = (TrialState.COMPLETE, TrialState.DIVERGED)
        plans = self.proposer.propose(
            self.table.family,
            self.table.family.scale,
            self.table.family.objectives,
            [Observation(t.configuration, t.values) for t in self.trials if t.state in told],
            [t.configuration for t in self.trials if t.state not in told],
            1,
            generator,
            Demands(lower_rungs=self._lower_rungs()),
        )
        if not plans:
            self.study = replace(self.study, trials=len(self.trials))
            return bool(rungs.promotions(self.study, self.trials, more_to_come=False))
        origin = Origin.INITIAL if len(self.trials) < self.initial else Origin.MODEL
        number = len(self.trials)
        fresh = Trial(number, plans[0], plans[0].digest, TrialState.QUEUED, origin, None, 0, 0, 0, None, {}, None)
        self.trials.append(fresh)
        self._work(number)
        return True

    def _lower_rungs(self) -> list[LowerRung]:
        share = self.study.fidelity.share_at
        return [
            LowerRung(Observation(trial.configuration, values), share(rung))
            for trial in self.trials
            for rung in range(self.study.fidelity.top)
            if (values := trial.values_at(rung)) is not None
        ]

    def _work(self, number: int) -> None:
        trial = self.trials[number] = replace(self.trials[number], state=TrialState.RUNNING)
        _, seconds = self.table.segment(trial.configuration, self.study.fidelity, trial.rung)
        self.idle -= 1
        self.spent += seconds
        heapq.heappush(self.running, (self.now + seconds, number))

    def _finish(self, number: int) -> None:
        trial, fidelity = self.trials[number], self.study.fidelity
        values, _ = self.table.segment(trial.configuration, fidelity, trial.rung)
        lower = {**trial.lower, trial.rung - 1: trial.values} if trial.rung else {}
        state = TrialState.COMPLETE if trial.rung == fidelity.top else TrialState.PAUSED
        self.trials[number] = replace(trial, state=state, rung=trial.rung + 1, values=values, lower=lower)


def replay(path: Path, fidelity: str, trials: int, workers: int, seeds: int, proposer: str) -> None:
    """Prints hypervolume and seconds of each seed, without rungs and with."""
    differences, shares = [], []
    print("seed   hypervolume full  rungs   worked seconds full  rungs   full runs")
    for seed in range(seeds):
        found = []
        for ladder in ("full", fidelity):
            search = Search(Table(path, seed), ladder, trials, workers, proposer, seed)
            found.append((*search.run(), sum(t.state is TrialState.COMPLETE for t in search.trials)))
        (volume, _, spent, _), (other, _, less, runs) = found
        differences.append(other - volume)
        shares.append(less / spent)
        print(f"{seed:>4}   {volume:>16.4f}  {other:.4f}   {spent:>19.0f}  {less:>5.0f}   {runs} of {trials}")
    print(
        f"mean difference of hypervolume {statistics.mean(differences):+.4f} (worst {min(differences):+.4f}), "
        f"seconds {statistics.mean(shares):.0%} of those without rungs"
    )


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("record")
    one.add_argument("--output", type=Path, required=True)
    one.add_argument("--count", type=int, default=40)
    other = commands.add_parser("replay")
    other.add_argument("table", type=Path)
    other.add_argument("--fidelity", default="1/4,1/2")
    other.add_argument("--trials", type=int, default=16)
    other.add_argument("--workers", type=int, default=2)
    other.add_argument("--seeds", type=int, default=5)
    other.add_argument("--proposer", default="closed-form")
    asked = parser.parse_args()
    if asked.command == "record":
        record(asked.output, asked.count)
    else:
        replay(asked.table, asked.fidelity, asked.trials, asked.workers, asked.seeds, asked.proposer)


if __name__ == "__main__":
    main()
