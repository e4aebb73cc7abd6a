import numpy as np
import pytest

from autopeft.optimizer.demands import Demands
from autopeft.optimizer.evidence import believe
from autopeft.optimizer.history import History
from autopeft.pareto import Scale
from autopeft.study import PARAMETERS, Direction, Objective, Observation
from search_spaces.presets import layerwise
from search_spaces.space import ModuleGroup, SearchSpace, SpaceDefinition

BUDGET = 512
OBJECTIVES = (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))


class Question:
    """A space with its box, a planted quality, and a short way to ask a proposer."""

    def __init__(self, space, budget=BUDGET):
        self.space = space
        self.scale = Scale(0.4, space.smallest_cost, budget)

    def quality(self, configuration):
        *ranks, rate = self.space.features(configuration)
        weights = np.linspace(0.2, 1, len(ranks))
        return float(0.5 + 0.4 * (1 - np.exp(-weights @ np.array(ranks))) - 0.1 * (rate - 0.6) ** 2)

    def observe(self, configurations, counts=True, quality=None):
        return [
            Observation(
                plan,
                {
                    "accuracy": self.quality(plan) if quality is None else quality,
                    PARAMETERS: self.space.cost(plan),
                },
                counts,
            )
            for plan in configurations
        ]

    def sample(self, count, seed=0):
        generator = np.random.default_rng(seed)
        plans = {}
        while len(plans) < count:
            plan = self.space.sample(generator, self.scale.cost_ceiling)
            plans.setdefault(plan.digest, plan)
        return list(plans.values())

    def ask(self, proposer, observations=(), pending=(), count=1, seed=0, objectives=OBJECTIVES, **demands):
        generator, wishes = np.random.default_rng(seed), Demands(**demands)
        return proposer.propose(self.space, self.scale, objectives, observations, pending, count, generator, wishes)

    def belief(self, observations, pending=(), objectives=OBJECTIVES, **demands):
        return believe(History.of(self.space, self.scale, objectives, observations, pending, Demands(**demands)))


@pytest.fixture
def question(tiny_backbone):
    return Question(SearchSpace(layerwise(tiny_backbone, (1e-4, 1e-2)), tiny_backbone))


@pytest.fixture
def make_question_on():
    """A question on any space."""
    return Question


@pytest.fixture
def make_question(tiny_backbone):
    """A question on a space of query ranks with a fixed learning rate."""

    def make(ranks=(0, 1, 2), layers=None, budget=BUDGET):
        definition = SpaceDefinition("small", (ModuleGroup(("query",), ranks),), layers, 2.0, (1e-3, 1e-3))
        return Question(SearchSpace(definition, tiny_backbone), budget)

    return make
