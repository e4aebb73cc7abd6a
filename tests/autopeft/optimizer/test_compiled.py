"""Compiled code: built once, copied by every process after it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from autopeft.optimizer import compiled as module
from autopeft.optimizer.compiled import VARIABLE, compiled


@pytest.fixture(autouse=True)
def _unnamed(monkeypatch, tmp_path):
    monkeypatch.setenv("AUTOPEFT_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(module, "kept_folder", lambda: tmp_path / "cache" / "compiled" / "here")


@pytest.fixture
def another_process():
    """Forgets the folder of this one, as it is for tests before and after."""
    module._own_folder.cache_clear()
    yield module._own_folder.cache_clear
    module._own_folder.cache_clear()


def build(content):
    """What torch does in a process that begins here: the built file in a folder by name."""
    file = Path(os.environ[VARIABLE]) / "extension" / "extension.so"
    found = file.read_text() if file.exists() else None
    file.parent.mkdir(exist_ok=True)
    file.write_text(content)
    return found


def test_what_one_built_the_next_finds_in_a_folder_of_its_own(another_process):
    with compiled():
        first = os.environ[VARIABLE]
        assert build("first") is None
    with compiled():
        assert os.environ[VARIABLE] == first
    another_process()
    with compiled():
        assert os.environ[VARIABLE] != first
        assert build("second") == "first"
    another_process()
    with compiled():
        assert build("third") == "first", "what is kept is not written to"
    assert VARIABLE not in os.environ


def test_a_build_that_failed_is_not_kept(another_process):
    with pytest.raises(RuntimeError, match="no compiler"), compiled():
        build("half")
        raise RuntimeError("no compiler")
    another_process()
    with compiled():
        assert build("whole") is None


def test_a_folder_that_the_user_named_is_left_to_torch(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    with compiled():
        build("here")
    assert (tmp_path / "extension" / "extension.so").read_text() == "here"
    assert not (tmp_path / "cache").exists()


def test_a_cache_that_cannot_be_written_costs_nothing_but_time(tmp_path, another_process):
    (tmp_path / "cache").write_text("a file where the folder should be")
    with compiled():
        build("lost")


@pytest.mark.slow
def test_a_second_process_does_not_compile_anew(tmp_path):
    pytest.importorskip("botorch")
    code = """
import os
import torch
from torch.utils.cpp_extension import load
from autopeft.optimizer.compiled import compiled
with compiled():
    print(os.stat(load("tiny", ["tiny.cpp"]).__file__).st_mtime_ns)
"""
    definition = 'static PyModuleDef tiny = {PyModuleDef_HEAD_INIT, "tiny"};'
    entry = 'extern "C" PyObject* PyInit_tiny() { return PyModule_Create(&tiny); }'
    (tmp_path / "tiny.cpp").write_text(f"#include <Python.h>\n{definition}\n{entry}\n")
    built = [
        subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True) for _ in range(2)
    ]
    assert [process.returncode for process in built] == [0, 0], built[0].stderr
    assert built[0].stdout == built[1].stdout != ""
