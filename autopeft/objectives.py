"""What can be traded off: every objective by name, how ``--objectives`` and limits are read, and a trial's figures.

The first objective is always the task's metric, maximised; the others are costs, minimised. Exact ones follow from the
configuration by arithmetic (``search_spaces.cost``) and are never learned; measured ones are what a trial showed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from typing_extensions import TypeVar

from autopeft.errors import ConfigurationError
from autopeft.settings import SearchSettings
from autopeft.study import PARAMETERS, Direction, Objective, Origin, Study, Trial, TrialState
from search_spaces import cost
from search_spaces.configuration import Configuration
from search_spaces.references import NAMES

PERPLEXITY = "perplexity"
"""Of language models alone."""

MOST = 4
"""Objectives that a search may trade off at most: more have no front that anybody reads."""


class Scored(Protocol):
    """What of a trial a standing is made of: a ``Trial``, or a summary of one without its configuration."""

    @property
    def number(self) -> int:
        """Of the trial."""

    @property
    def replicate(self) -> int:
        """Repeat number, which decides the data order."""

    @property
    def state(self) -> TrialState:
        """Of the trial."""

    @property
    def origin(self) -> Origin:
        """Who proposed it."""

    @property
    def values(self) -> Mapping[str, float]:
        """Of its highest rung."""

    @property
    def digest(self) -> str:
        """Equal for repeats."""

    @property
    def error(self) -> str | None:
        """Reason of a failure."""

    def with_values(self, values: Mapping[str, float]) -> Self:
        """The same with other values."""


T = TypeVar("T", bound=Scored, default=Trial)


@dataclass(frozen=True, slots=True)
class Kind:
    """One cost that can be an objective or have a limit.

    Attributes:
        heading: In tables.
        unit: In which it is measured.
        meaning: In one line.
        exact: Whether it follows from the configuration.
        logarithmic: Whether its axis is a log scale.
        show: A value for people.
    """

    heading: str
    unit: str
    meaning: str
    exact: bool
    logarithmic: bool
    show: Callable[[float], str]


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _scaled(unit: str) -> Callable[[float], str]:
    def show(value: float) -> str:
        for factor, prefix in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
            if abs(value) >= factor:
                return f"{value / factor:.4g} {prefix}{unit}"
        return f"{value:.4g} {unit}"

    return show


def _seconds(value: float) -> str:
    return f"{round(value, 2):g} s" if value >= 0.1 else f"{value * 1e3:.3g} ms"


KINDS: Mapping[str, Kind] = {
    PARAMETERS: Kind("parameters", "parameters", "trained weights, head not counted", True, True, _count),
    "stored_bytes": Kind("stored", "bytes", "tensors of the saved adapter in 32 bits", True, True, _scaled("B")),
    "forward_flops": Kind(
        "added FLOPs",
        "operations a row",
        "what the unmerged adapters add to the forward pass of one row at the study's max length",
        True,
        True,
        _scaled("FLOP"),
    ),
    "peak_memory": Kind("peak memory", "bytes", "largest memory in use while training", False, True, _scaled("B")),
    "train_seconds": Kind("training", "seconds", "from the insertion of the adapters", False, True, _seconds),
    "inference_seconds": Kind("inference", "seconds a row", "scoring the validation rows", False, True, _seconds),
    "loss": Kind("loss", "", "mean validation loss", False, False, lambda value: f"{value:.4f}"),
    PERPLEXITY: Kind("perplexity", "", "exp of the loss of a token", False, True, lambda value: f"{value:.4g}"),
}
"""Every cost by name; all are minimised. The task's metric, maximised, comes on top."""

FORMERLY = {"peak_memory": "peak_memory_bytes"}
"""Keys that measured costs have in the values of older records."""

_SHOWN = {
    **{name: kind.show for name, kind in KINDS.items()},
    **{key: KINDS[name].show for name, key in FORMERLY.items()},
    "evaluate_seconds": _seconds,
}
"""How values are written: every cost, also under its older key, and a time that is recorded but never traded off."""

ALIASES = {key: name for name, key in FORMERLY.items()} | {"parameters": PARAMETERS, "flops": "forward_flops"}

LIMITS: Mapping[str, str] = {
    "max_memory": "peak_memory",
    "max_train_seconds": "train_seconds",
    "max_inference_seconds": "inference_seconds",
    "max_stored": "stored_bytes",
    "max_flops": "forward_flops",
}
"""What each setting limits; the budget limits the trained parameters."""


def asked_for(
    settings: SearchSettings, metric: str, metrics: Mapping[str, str]
) -> tuple[tuple[Objective, ...], dict[str, float]]:
    """The objectives and the limits that ``settings`` ask for; without any, the metric against trained parameters.

    Args:
        settings: What the user asked for.
        metric: The quality of the task.
        metrics: Every name of a metric, with the metric that it means.

    Raises:
        ConfigurationError: If a name or an amount is not valid.
    """
    given = {name: getattr(settings, setting) for setting, name in LIMITS.items()}
    limits = {name: parse_limit(name, text) for name, text in given.items() if text is not None}
    return parse(settings.objectives or f"{metric},{PARAMETERS}", metric, metrics), limits


def parse(text: str, metric: str, metrics: Mapping[str, str]) -> tuple[Objective, ...]:
    """The objectives that ``text`` names, the task's metric first whatever the order.

    Args:
        text: Names with commas between.
        metric: The quality of the task.
        metrics: Every name of a metric, with the metric that it means.

    Raises:
        ConfigurationError: If a name is unknown or given twice, the metric is not among them, or there are too few or
            too many.
    """
    names = [_name(part, metric, metrics) for part in text.split(",") if part.strip()]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ConfigurationError(f"objectives {text!r}: {twice[0]} is named twice")
    if metric not in names:
        raise ConfigurationError(
            f"objectives {text!r}: {metric}, the quality of this task, has to be among them: without it the cheapest "
            f"configuration is always the best; try {','.join([metric, *names])}"
        )
    if not 2 <= len(names) <= MOST:
        raise ConfigurationError(
            f"objectives {text!r}: expected {metric} and one to {MOST - 1} costs of {', '.join(KINDS)}; "
            f"got {len(names)} in all"
        )
    costs = tuple(Objective(name, Direction.MINIMISE) for name in names if name != metric)
    return (Objective(metric, Direction.MAXIMISE), *costs)


def _name(part: str, metric: str, metrics: Mapping[str, str]) -> str:
    name = part.strip().lower().replace("-", "_")
    name = metrics.get(name, ALIASES.get(name, name))
    if name == metric or name in KINDS:
        return name
    known = [metric, *KINDS]
    close = difflib.get_close_matches(name, [*known, *ALIASES], n=1)
    hint = f"did you mean {ALIASES.get(close[0], close[0])!r}?" if close else f"known here: {', '.join(known)}"
    if name in metrics.values():
        hint = f"the metric of this task is {metric}; --metric chooses another"
    raise ConfigurationError(f"objective {part.strip()!r}: {hint}")


def measured(objectives: Sequence[Objective]) -> list[str]:
    """Names of the costs among ``objectives`` that have to be measured."""
    return [objective.name for objective in objectives[1:] if not KINDS[objective.name].exact]


def exact(study: Study) -> dict[str, Callable[[Configuration], float]]:
    """Every exact cost as a function of a configuration of ``study``."""
    backbone, tokens = study.backbone, study.fidelity.max_length
    return {
        PARAMETERS: lambda plan: cost.trainable_parameters(plan, backbone),
        "stored_bytes": lambda plan: cost.stored_bytes(plan, backbone),
        "forward_flops": lambda plan: cost.forward_flops(plan, backbone, tokens),
    }


def figures(study: Study, trial: Scored, names: Sequence[str]) -> dict[str, float]:
    """Those of ``names`` that are known of ``trial``: as they were recorded, or by arithmetic where that tells them.

    Older records hold no exact costs, and a summary no configuration to compute them from.
    """
    functions, found = exact(study), {}
    for name in names:
        key = name if name in trial.values else FORMERLY.get(name, name)
        if key in trial.values:
            found[name] = float(trial.values[key])
        elif name in functions and isinstance(trial, Trial) and trial.values:
            found[name] = float(functions[name](trial.configuration))
    return found


def point(study: Study, trial: Scored) -> tuple[float, ...] | None:
    """The objectives of ``trial`` as they are, in the study's order; None if it lacks one."""
    names = [objective.name for objective in study.objectives]
    found = figures(study, trial, names)
    return tuple(found[name] for name in names) if len(found) == len(names) else None


def named_references(text: str | None) -> tuple[str, ...]:
    """The references that ``text`` names with commas between, each once.

    Raises:
        ConfigurationError: If a name is unknown.
    """
    names = tuple(dict.fromkeys(part.strip().lower() for part in (text or "").split(",") if part.strip()))
    for name in names:
        if name not in NAMES:
            raise ConfigurationError(f"reference {name!r}: expected some of {', '.join(NAMES)}")
    return names


def show(name: str, value: float) -> str:
    """A value of a trial for people, with its unit; a metric has four digits."""
    return _SHOWN[name](value) if name in _SHOWN else f"{value:.4f}"


def describe(study: Study) -> list[str]:
    """Lines for people on what ``study`` trades off and limits beyond quality, parameters and the budget."""
    costs = [objective.name for objective in study.objectives[1:]]
    lines = []
    if costs != [PARAMETERS]:
        lines.append(f"trade    {study.metric} against {', '.join(f'{name} ({_origin(name)})' for name in costs)}")
    if study.limits:
        limits = [f"{name} ≤ {show(name, limit)} ({_origin(name)})" for name, limit in study.limits.items()]
        lines.append(f"limits   {', '.join(limits)}")
    if study.repeats > 1:
        lines.append(f"repeats  up to {study.repeats} measurements of a configuration, where they decide the front")
    return lines


def _origin(name: str) -> str:
    return "exact" if KINDS[name].exact else "measured"


_AMOUNT = re.compile(r"\s*(\d+(?:\.\d*)?(?:e[+-]?\d+)?|\.\d+)\s*([kmgt]i?)?\s*(b|s|flops?)?\s*", re.IGNORECASE)
_PREFIXES = {
    "": 1.0,
    "k": 1e3,
    "m": 1e6,
    "g": 1e9,
    "t": 1e12,
    "ki": 2.0**10,
    "mi": 2.0**20,
    "gi": 2.0**30,
    "ti": 2.0**40,
}
_UNITS = {
    "b": (_PREFIXES, "16GB, 512MiB or a number of bytes"),
    "s": ({"": 1.0, "m": 1e-3}, "60, 0.5s or 20ms"),
    "f": (_PREFIXES, "2.5M, 2.5MFLOP or a number"),
}
"""By first letter of a unit: the prefixes that it takes, and how amounts are written."""


def parse_limit(name: str, text: str) -> float:
    """The limit on the cost ``name`` that ``text`` writes: 16GB, 512MiB, 60, 20ms, 2.5M.

    Raises:
        ConfigurationError: If it is no amount above 0 of that unit.
    """
    letter = {"bytes": "b", "seconds": "s", "seconds a row": "s"}.get(KINDS[name].unit, "f")
    return _amount(f"limit on {name}", text, letter)


def parse_bytes(what: str, text: str) -> int:
    """The bytes that ``text`` writes: 16GB, 512MiB or a number; ``what`` is theirs, for the error.

    Raises:
        ConfigurationError: If it is no amount above 0.
    """
    return int(_amount(what, text, "b"))


def _amount(what: str, text: str, letter: str) -> float:
    """The amount that ``text`` writes in the unit that begins with ``letter``."""
    prefixes, example = _UNITS[letter]
    match = _AMOUNT.fullmatch(text)
    prefix, unit = ((match[2] or "").lower(), (match[3] or letter).lower()) if match else ("", "")
    if match is None or unit[0] != letter or prefix not in prefixes or not float(match[1]) > 0:
        raise ConfigurationError(f"{what} {text!r}: expected an amount above 0 such as {example}")
    return float(match[1]) * prefixes[prefix]
