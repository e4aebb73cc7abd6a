"""Metrics from a file of the user's: ``FILE.py:function``, known here by path, name and hash, and never run.

What a study keeps is ``/path/FILE.py:function#sha256=…``; the code itself stays where it is, and a worker runs it only
if its bytes still have that hash. The function takes generated texts and references and returns a number, or one a
row, from 0 to 1, higher is better.
"""

from __future__ import annotations

import ast
import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from autopeft.errors import TaskError
from autopeft.tasks.metrics import CUSTOM

_FORM = re.compile(r"(?P<file>.+\.py):(?P<function>[A-Za-z_][A-Za-z0-9_]*)(?:#sha256=(?P<sha256>[0-9a-f]{64}))?")
SIGNATURE = "def {name}(predictions: list[str], references: list[str]) -> float | list[float]"


@dataclass(frozen=True, slots=True)
class MetricFile:
    """A function in a file, as it was when the study was made.

    Attributes:
        file: Absolute path.
        function: Name of the function.
        sha256: Of the file's bytes, in hexadecimal.
    """

    file: str
    function: str
    sha256: str

    @classmethod
    def find(cls, text: str) -> MetricFile | None:
        """What ``text`` names; None if it is no ``FILE.py:function``.

        Raises:
            TaskError: If the file is not there or has changed, or has no such function.
        """
        match = _FORM.fullmatch(text)
        if match is None:
            return None
        path = os.path.abspath(os.path.expanduser(match["file"]))  # noqa: PTH100, PTH111 (links are not followed)
        content = read_unchanged(path, match["sha256"])
        _require_function(path, match["function"], content)
        return cls(path, match["function"], hashlib.sha256(content).hexdigest())

    def __str__(self) -> str:
        return f"{self.file}:{self.function}#sha256={self.sha256}"

    @property
    def metric(self) -> str:
        """Name of the metric in the record."""
        return f"{CUSTOM}{self.function.lower()}"

    def read(self) -> bytes:
        """The file's bytes.

        Raises:
            TaskError: If it is not there or has changed.
        """
        return read_unchanged(self.file, self.sha256)


def read_unchanged(path: str, sha256: str | None) -> bytes:
    """The bytes of a file; of that hash, if one is given.

    Raises:
        TaskError: If it cannot be read or has another.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise TaskError(
            f"metric {path}: the file cannot be read ({error.strerror}); expected it at the same path on every host "
            "that has workers: put it there"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if sha256 is not None and found != sha256:
        raise TaskError(
            f"metric {path}: the file has changed since the study began (hash {found[:12]}, the study has "
            f"{sha256[:12]}); put the old one back, or start a new study"
        )
    return content


def _require_function(path: str, name: str, content: bytes) -> None:
    try:
        tree = ast.parse(content, path)
    except (SyntaxError, ValueError) as error:
        raise TaskError(f"metric {path}: not Python that can be read: {error}; correct the file") from error
    functions = {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef)}
    expected = SIGNATURE.format(name=name)
    if name not in functions:
        known = ", ".join(functions) or "none"
        raise TaskError(f"metric {path}: no function {name}, its functions: {known}; expected {expected}")
    arguments = functions[name].args
    positional = len(arguments.posonlyargs) + len(arguments.args)
    least = positional - len(arguments.defaults)
    required = [default for default in arguments.kw_defaults if default is None]
    if required or least > 2 or (positional < 2 and arguments.vararg is None):
        raise TaskError(f"metric {path}: {name} cannot be called with two arguments; expected {expected}")
