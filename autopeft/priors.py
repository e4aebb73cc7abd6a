"""What ``--prior`` names: probes in the record, the latest of a kind, or a JSON file of scores given by hand.

What guides a search stands in its study with a hash, so that a resumed search believes what it did.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from autopeft.errors import ConfigurationError
from autopeft.probe import LAYER, Guide, Probe
from autopeft.store import Reader
from autopeft.study import Study
from search_spaces.errors import why_unread


def in_files(asked: str) -> bool:
    """Whether all that ``asked`` names are files, so that no record is needed."""
    return all(_is_file(name) for name in _names(asked))


def resolve(asked: str, store: Reader | None, study: Study) -> tuple[Guide, ...]:
    """The guides that ``asked`` names, with commas between, for the backbone of ``study``; files need no ``store``.

    Raises:
        NotFoundError: If a probe does not exist.
        ConfigurationError: If a file is no scores, scores are for another backbone, or the proposer follows none.
    """
    names = _names(asked)
    if not names:
        raise ConfigurationError(f"prior {asked!r}: expected names of probes, kinds of probes or JSON files")
    if study.proposer != "closed-form":
        raise ConfigurationError(f"proposer {study.proposer} follows no prior: take closed-form, or leave --prior out")
    return tuple(_guide(name, store, study) for name in names)


def _names(asked: str) -> list[str]:
    return [name.strip() for name in asked.split(",") if name.strip()]


def _is_file(name: str) -> bool:
    return name.endswith(".json") or Path(name).is_file()


def _guide(name: str, store: Reader | None, study: Study) -> Guide:
    if _is_file(name):
        guide = _from_file(Path(name))
    elif store is None:
        raise ConfigurationError(f"prior {name}: no file of that name, and no record to look for a probe in")
    else:
        probe: Probe = store.probe(name, study.model.sha256)
        guide = Guide(probe.name, probe.sha256, {site: list(row) for site, row in probe.scores.items()})
    backbone = study.backbone
    if guide.layer_count != backbone.layer_count:
        raise ConfigurationError(
            f"prior {name}: scores for {guide.layer_count} layers, {backbone.name} has {backbone.layer_count}"
        )
    unknown = sorted(set(guide.scores) - {LAYER, *backbone.roles})
    if unknown:
        raise ConfigurationError(
            f"prior {name}: scores for {', '.join(unknown)}; {backbone.name} has {', '.join(backbone.roles)}, and "
            f'"{LAYER}" stands for whole layers'
        )
    return guide


def _from_file(file: Path) -> Guide:
    """Scores by site, on their own or under ``scores`` as in ``autopeft probes NAME --json``."""
    try:
        content = file.read_bytes()
        data: Any = json.loads(content)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"prior {file}: cannot be read as JSON: {why_unread(error)}") from error
    scores = data["scores"] if isinstance(data, dict) and "scores" in data else data
    try:
        return Guide(file.name, hashlib.sha256(content).hexdigest(), scores)
    except ConfigurationError as error:
        raise ConfigurationError(f"prior {file}: {error}") from error
