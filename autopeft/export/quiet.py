"""Keeps the libraries from saying, while an export is verified, what is known here and no fault of the export."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import transformers


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers from reporting that a head is new (the adapter brings it), and what peft does not use yet."""
    level = transformers.logging.get_verbosity()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            # peft asks every layer for its widths, and does not know those of norms; VeRA's projection follows its key
            warnings.filterwarnings("ignore", message="Unsupported layer type|Specified to not (save|load) vera_A")
            yield
    finally:
        transformers.logging.set_verbosity(level)
