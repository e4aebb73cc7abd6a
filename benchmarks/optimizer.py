"""How good are the proposers? Hypervolume by trials on problems with known fronts, and CPU seconds a proposal.

    python benchmarks/optimizer.py run --results results.jsonl      goes on where it stopped
    python benchmarks/optimizer.py table --results results.jsonl    prints what is there, as Markdown
    python benchmarks/optimizer.py plot --results results.jsonl --output curves.html
    python benchmarks/optimizer.py time                             CPU seconds a proposal at n = 50, 200, 1000

One line of JSON a search: family, noise, proposer, seed, batch, hypervolume after every trial as a share of the true
front's (of noiseless values of what was evaluated), the same of those alone that the measured front holds (by the mean
of repeats: what a user would be handed), CPU seconds of every proposal. All proposers start from the same Sobol points;
over-budget proposals of a peer cost it no trial. Replays of real trials: ``replay.py``. Intervals are Student's.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import time
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import numpy as np
from known_front import Family, undominated
from problem_families import FAMILIES
from replay import TableFamily
from scipy.stats import t as student

from autopeft.optimizer import PROPOSERS, make_proposer
from autopeft.study import Observation

MARKS = (25, 50, 100, 200)
NOISE = 0.007
"""Standard deviation of a measured quality: between that of 200 and of 20,000 validation rows."""

CHEAP = ("closed-form", "random", "sobol", "evolution", "tpe", "nsga2", "nsga3")


def search(
    family: Family, name: str, trials: int, batch: int, initial: int, repeats: int = 1
) -> tuple[list[Observation], list[float]]:
    """What ``name`` saw, in order, and the CPU seconds of each proposal."""
    proposer, demands = make_proposer(name, initial, family.seed), replace(family.demands, repeats=repeats)
    observations: list[Observation] = []
    seconds: list[float] = []
    while len(observations) < trials:
        wanted = min(batch, trials - len(observations))
        generator = np.random.default_rng([family.seed, len(observations)])
        started = time.process_time()
        plans = proposer.propose(family, family.scale, family.objectives, observations, [], wanted, generator, demands)
        seconds += [round((time.process_time() - started) / wanted, 5)] * len(plans)
        if not plans:
            break
        observations += family.observe(plans, len(observations))
    return observations, seconds


def handed_over(family: Family, observations: list[Observation]) -> float:
    """Share of the true front's hypervolume that the members of the measured front really have."""
    measured = defaultdict(list)
    for seen in observations:
        measured[seen.configuration].append(seen.values[family.objectives[0].name])
    means = np.array([statistics.fmean(values) for values in measured.values()])
    plans = list(measured)
    members = undominated(means, family.minimised(plans)[1])
    return family.volumes([plans[index] for index in members])[-1]


def make_family(name: str, seed: int, noise: float) -> Family:
    """The family called ``name``, or the replay of the table in the file ``name``."""
    return FAMILIES[name](seed, noise) if name in FAMILIES else TableFamily(seed, noise, Path(name))


def load(path: Path) -> list[dict]:
    """The finished searches in ``path``."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def key(row: dict) -> tuple:
    return tuple(row[name] for name in ("family", "noise", "proposer", "seed", "batch", "trials", "initial"))


def run(arguments: argparse.Namespace) -> None:
    """Every search that is not in the results yet, seed by seed."""
    path = Path(arguments.results)
    done = {key(row) for row in load(path)}
    seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
    plan = itertools.product(seeds, arguments.families, arguments.proposers)
    for seed, name, proposer in plan:
        label = proposer if arguments.repeats == 1 else f"{proposer}, repeats {arguments.repeats}"
        row = {"family": Path(name).name, "noise": arguments.noise, "proposer": label, "seed": seed}
        row |= {"batch": arguments.batch, "trials": arguments.trials, "initial": arguments.initial}
        if key(row) in done:
            continue
        family = make_family(name, seed, arguments.noise)
        sizes = (arguments.trials, arguments.batch, arguments.initial, arguments.repeats)
        seen, seconds = search(family, proposer, *sizes)
        row |= {"volume": family.volumes([one.configuration for one in seen]), "seconds": seconds}
        row |= {"handed over": {n: handed_over(family, seen[:n]) for n in MARKS if n <= len(seen)}}
        with path.open("a") as lines:
            lines.write(json.dumps(row) + "\n")
        marks = " ".join(f"{row['volume'][n - 1]:.3f}" for n in MARKS if n <= len(seen))
        what = f"{row['family']} noise {arguments.noise} {label} batch {arguments.batch}"
        print(f"{what} seed {seed}: {marks}", flush=True)


def mean_and_error(values: list[float]) -> str:
    """Mean ± standard error."""
    if len(values) == 1:
        return f"{values[0]:.3f} (one seed)"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def grouped(rows: list[dict]) -> dict[tuple, dict[str, dict[int, dict]]]:
    """Searches by (family, noise, batch), proposer and seed; the longest one of each."""
    groups: dict[tuple, dict] = defaultdict(lambda: defaultdict(dict))
    for row in sorted(rows, key=lambda row: row["trials"]):
        groups[row["family"], row["noise"], row["batch"]][row["proposer"]][row["seed"]] = row
    return groups


def table(arguments: argparse.Namespace) -> None:
    """Hypervolume and CPU seconds of every proposer, and the paired lead of ours."""
    for (family, noise, batch), proposers in sorted(grouped(load(Path(arguments.results))).items()):
        print(f"\n**`{family}`, noise {noise}, batch {batch}**\n")
        names = [*(f"HV@{n}" for n in arguments.marks), "handed over @50", "@100", "s/proposal n=50", "n=100", "n=200"]
        print(f"| proposer (seeds) | {' | '.join(names)} |")
        print("|---" * (len(names) + 1) + "|")
        for proposer in sorted(proposers, key=lambda label: list(PROPOSERS).index(label.split(",")[0])):
            searches = list(proposers[proposer].values())
            cells = [column(searches, "volume", n) for n in arguments.marks]
            cells += [column(searches, "handed over", n) for n in (50, 100)]
            cells += [column(searches, "seconds", n) for n in (50, 100, 200)]
            print(f"| {proposer} ({len(searches)}) | " + " | ".join(cells) + " |")
        leads(proposers, arguments.marks)


def column(searches: list[dict], name: str, count: int) -> str:
    """One cell: a hypervolume after ``count`` trials, or the mean seconds of the ten proposals before."""
    if name == "handed over":
        found = [row[name][str(count)] for row in searches if str(count) in row.get(name, {})]
        return mean_and_error(found) if found else "–"
    long = [row for row in searches if len(row[name]) >= count]
    if not long:
        return "–"
    if name == "seconds":
        return f"{statistics.mean(statistics.mean(row[name][count - 10 : count]) for row in long):.3f}"
    return mean_and_error([row[name][count - 1] for row in long])


def leads(proposers: dict[str, dict[int, dict]], marks: list[int]) -> None:
    """Paired differences, ours minus the peer's, with 95 % intervals: at equal trials, and ours at half of them."""
    compared = [(n, n) for n in marks] + [(n, 2 * n) for n in marks if 2 * n in marks]
    ours = proposers.get("closed-form", {})
    for peer, searches in proposers.items():
        for mine, theirs in compared:
            pairs = [
                ours[seed]["volume"][mine - 1] - row["volume"][theirs - 1]
                for seed, row in searches.items()
                if seed in ours and len(ours[seed]["volume"]) >= mine and len(row["volume"]) >= theirs
            ]
            if peer != "closed-form" and len(pairs) > 1:
                half = student.ppf(0.975, len(pairs) - 1) * statistics.stdev(pairs) / len(pairs) ** 0.5
                middle = statistics.mean(pairs)
                print(f"\nours@{mine} − {peer}@{theirs}: {middle:+.3f} [{middle - half:+.3f}, {middle + half:+.3f}]")


def plot(arguments: argparse.Namespace) -> None:
    """Curves of the mean hypervolume, one chart a family, as an HTML page."""
    import altair
    import pandas

    points = [
        {"problem": f"{family} {noise} {batch}", "proposer": name, "trials": n, "hypervolume": row["volume"][n - 1]}
        for (family, noise, batch), proposers in grouped(load(Path(arguments.results))).items()
        for name, searches in proposers.items()
        for row in searches.values()
        for n in range(5, len(row["volume"]) + 1, 5)
    ]
    base = altair.Chart(pandas.DataFrame(points)).encode(x="trials", color="proposer")
    lines = base.mark_line().encode(y="mean(hypervolume)")
    bands = base.mark_errorband(extent="stderr").encode(y="hypervolume")
    (lines + bands).facet(column="problem").save(arguments.output)


def measure(arguments: argparse.Namespace) -> None:
    """CPU seconds of one proposal after n random trials, the least of three."""
    for name in arguments.families:
        family = make_family(name, 0, NOISE)
        for count in (50, 100, 200, 1000):
            observations, _ = search(family, "random", count, 50, 0)
            seconds = []
            for repeat in range(3):
                proposer, generator = make_proposer("closed-form", 0, 0), np.random.default_rng(repeat)
                started = time.process_time()
                proposer.propose(
                    family, family.scale, family.objectives, observations, [], 1, generator, family.demands
                )
                seconds.append(time.process_time() - started)
            print(f"{name} n={count}: {min(seconds):.3f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("run", "table", "plot", "time"))
    parser.add_argument("--results", default="optimizer-results.jsonl")
    parser.add_argument("--output", default="optimizer-curves.html")
    parser.add_argument("--families", nargs="+", default=["paper", "joint", "three"], help="names or table files")
    parser.add_argument("--proposers", nargs="+", default=list(CHEAP), choices=list(PROPOSERS))
    parser.add_argument("--seeds", type=int, default=10, help="how many")
    parser.add_argument("--first-seed", type=int, default=10, help="10 to 19: no ingredient was chosen on them")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--marks", nargs="+", type=int, default=list(MARKS), help="trials at which table looks")
    parser.add_argument("--initial", type=int, default=20, help="Sobol points that all but random and sobol start from")
    parser.add_argument("--repeats", type=int, default=1, help="most measurements of a configuration; closed-form only")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--noise", type=float, default=NOISE)
    arguments = parser.parse_args()
    {"run": run, "table": table, "plot": plot, "time": measure}[arguments.command](arguments)


if __name__ == "__main__":
    main()
