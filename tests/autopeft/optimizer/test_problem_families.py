import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from autopeft.optimizer import make_proposer
from autopeft.optimizer.acquisition import Cells
from search_spaces.errors import ConfigurationError

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"


@pytest.fixture
def families(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import problem_families

    yield problem_families
    for name in ("problem_families", "known_front", "replay"):
        sys.modules.pop(name, None)


def small(family, layers):
    """``family`` with so few layers that its points can be told one by one."""
    return type(f"Small{family.__name__}", (family,), {"layers": layers, "budget": 60_000})(3, 0.0)


def every_plan(family):
    rows = itertools.product(*(range(len(ordinal.values)) for ordinal in family.ordinals))
    table = np.unique(family.canonical(np.array(list(rows))), axis=0)
    costs = family.costs(table)
    return table[(costs > 0) & (costs <= family.budget)]


@pytest.mark.parametrize(("name", "layers"), [("Paper", 3), ("Three", 3)])
def test_the_enumerated_front_is_that_of_brute_force(families, name, layers):
    family = small(getattr(families, name), layers)
    from known_front import Plan

    plans = [Plan((tuple(row), 1e-3)) for row in every_plan(family).tolist()]
    assert family.reference() == pytest.approx(Cells(*family.minimised(plans)).volume())


def test_the_joint_front_is_that_of_brute_force_at_the_best_learning_rate(families):
    family = small(families.Joint, 2)
    rows = every_plan(family)
    rates = 1.1 - 0.7 * np.log(family.costs(rows)) / np.log(family.budget)
    best = [(tuple(row), family.learning_rate.at(rate)) for row, rate in zip(rows.tolist(), rates, strict=True)]
    from known_front import Plan

    plans = [Plan(point) for point in best]
    assert family.reference() == pytest.approx(Cells(*family.minimised(plans)).volume(), abs=1e-6)


@pytest.mark.parametrize("name", ["paper", "joint", "three"])
def test_points_and_neighbours_are_feasible_canonical_and_one_step_away(families, name):
    family = families.FAMILIES[name](0, 0.01)
    generator = np.random.default_rng(0)
    for point in family.place_points(generator.random((20, family.dimension_count + 1)), family.budget):
        assert family.decode(point).point == point
        assert family.point_costs([point])[0] <= family.budget
        near = family.neighbour_points(point, generator)
        assert point not in near
        assert all(family.decode(other).point == other for other in near)
    with pytest.raises(ConfigurationError, match="empty plan"):
        family.decode(((0,) * len(family.ordinals), 1e-3))


def test_the_spaces_are_as_large_as_they_say(families):
    paper, joint = families.Paper(0, 0.0), families.Joint(0, 0.0)
    assert (2**12 - 1) * (11**3 - 1) == 5_446_350
    assert (len(paper.ordinals), joint.dimension_count) == (15, 37)


def test_noise_does_not_depend_on_who_asks(families):
    family = families.Paper(0, 0.01)
    plans = [family.decode(point) for point in family.place_points(np.random.default_rng(0).random((2, 17)), 550_000)]
    noise = [family.observe([plan], 5)[0].values["accuracy"] - family.true_values([plan])[0] for plan in plans]
    assert noise[0] == pytest.approx(noise[1])


def test_a_replay_answers_with_rows_of_its_table(families, make_study, make_trial, tmp_path):
    import replay

    study = make_study()
    space, generator = study.search_space, np.random.default_rng(0)
    plans = [space.sample(generator, study.budget.parameters) for _ in range(12)]
    rows = [
        {
            "point": space.encode(plan),
            "values": {study.metric: 0.6 + 0.01 * i, "trainable_parameters": space.cost(plan)},
        }
        for i, plan in enumerate(plans)
    ]
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"study": study.to_json(), "trials": rows}))
    family = replay.TableFamily(0, 0.0, table)
    observations = []
    while batch := make_proposer("closed-form", 3, 0).propose(
        family, family.scale, family.objectives, observations, [], 2, generator, family.demands
    ):
        observations += family.observe(batch, len(observations))
    tried = {o.configuration.point for o in observations}
    assert tried == {space.encode(plan) for plan in plans}
    assert family.volumes([o.configuration for o in observations])[-1] == pytest.approx(1)


@pytest.mark.parametrize("task", ["banking77", "hwu64"])
def test_the_tables_of_real_trials_are_small_and_are_searched_to_their_last_row(families, task):
    import replay

    path = BENCHMARKS / f"replay-{task}.json"
    assert path.stat().st_size < 40_000
    table = json.loads(path.read_text())
    assert table["study"]["task"]["source"] == task
    family = replay.TableFamily(0, 0.0, path)
    assert len(family.points) >= 75
    # rows that were trained again count by their mean
    assert max(map(len, family.rows.values())) == 3
    generator = np.random.default_rng(0)
    proposer = make_proposer("random", 0, 0)
    plans = proposer.propose(family, family.scale, family.objectives, [], [], 200, generator, family.demands)
    assert {plan.point for plan in plans} == set(family.points)
    volumes = family.volumes(plans)
    assert volumes == sorted(volumes)
    assert volumes[-1] == pytest.approx(1)
