"""Which trackers a final training can tell its figures to; ``workers.tracking`` tells them."""

from __future__ import annotations

from importlib.util import find_spec

from autopeft.errors import ConfigurationError

TRACKERS = ("tensorboard", "mlflow", "wandb")
"""Every tracker; its package and its extra have the same name."""


def require_tracker(name: str | None) -> None:
    """Nothing, if there is such a tracker and its package is installed.

    Raises:
        ConfigurationError: If not; the message names the extra.
    """
    if name is None:
        return
    if name not in TRACKERS:
        raise ConfigurationError(f"tracker {name!r}: expected one of {', '.join(TRACKERS)}")
    if find_spec(name) is None:
        raise ConfigurationError(f"tracker {name}: the package {name} is not installed; pip install 'autopeft[{name}]'")
