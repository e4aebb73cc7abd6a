"""Entries that are whole or not there: kills, two builders, eviction, damage, a full disk."""

import errno
import os
import signal
import subprocess
import sys

import numpy as np
import pytest

from workers.shelf import Shelf, key_of

BUILDER = """
import sys, time
from pathlib import Path
from workers.shelf import Shelf
root, key, wait, words = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3]), sys.argv[4]

def write(folder):
    with (folder / "data").open("w") as file:
        for word in words.split():
            file.write(word)
            file.flush()
            print("wrote", flush=True)
            time.sleep(wait)

print((Shelf(root, 10**9).fill(key, 100, write) / "data").read_text(), flush=True)
"""


def waited():
    pytest.fail("the lock is held by somebody")


def writing(text):
    return lambda folder: (folder / "data").write_text(text)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "shelf", 10**9)


def start(shelf, key, wait, words):
    command = [sys.executable, "-c", BUILDER, str(shelf.root), key, str(wait), words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_an_entry_is_found_as_it_was_written_and_written_once(shelf):
    assert shelf.find("k") is None
    assert (shelf.fill("k", 10, writing("first")) / "data").read_text() == "first"
    assert (shelf.fill("k", 10, writing("second")) / "data").read_text() == "first"
    assert (shelf.find("k") / "data").read_text() == "first"


def test_a_key_changes_with_each_of_its_parts():
    parts = {"backbone": "a", "data": "b", "layer": 3, "type": "float32"}
    changed = [{**parts, name: f"{value}x"} for name, value in parts.items()]
    assert len({key_of(p) for p in (parts, *changed, {**parts, "more": 1})}) == 6
    assert key_of(parts) == key_of(dict(reversed(parts.items())))


def test_a_builder_that_is_killed_leaves_no_entry_and_no_lock(shelf):
    process = start(shelf, "k", 60, "half whole")
    assert process.stdout.readline() == "wrote\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert shelf.find("k") is None
    assert [file for file in shelf.root.iterdir() if file.is_dir()]
    assert (shelf.fill("k", 10, writing("whole"), waited) / "data").read_text() == "whole"
    assert [file.name for file in shelf.root.iterdir() if file.is_dir()] == ["k"]


def test_of_two_builders_the_second_takes_what_the_first_made(shelf):
    first = start(shelf, "k", 0.5, "a b c")
    assert first.stdout.readline() == "wrote\n"
    second = start(shelf, "k", 0, "other")
    assert first.communicate()[0].splitlines()[-1] == "abc"
    assert second.communicate()[0] == "abc\n"


def test_a_wait_for_another_builder_can_be_ended(shelf):
    first = start(shelf, "k", 60, "a b")
    assert first.stdout.readline() == "wrote\n"

    def enough():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        shelf.fill("k", 10, writing("other"), enough)
    first.kill()
    first.communicate()


def test_what_was_used_longest_ago_goes_first(tmp_path):
    shelf = Shelf(tmp_path, 1000)
    for age, key in enumerate("cab"):
        shelf.fill(key, 500, writing("x" * 100))
        os.utime(tmp_path / key, (age, age))
    assert shelf.find("c") is not None  # just used
    shelf.fill("d", 500, writing("y"))
    assert {folder.name for folder, _ in shelf.entries()} >= {"c", "d"}
    assert shelf.find("a") is None
    assert sum(size for _, size in shelf.entries()) <= 1000


def test_an_entry_that_is_evicted_while_it_is_read_stays_readable(tmp_path):
    shelf = Shelf(tmp_path, 5000)
    shelf.fill("old", 4000, lambda folder: np.save(folder / "data.npy", np.arange(500)))
    mapped = np.load(shelf.find("old") / "data.npy", mmap_mode="r")
    shelf.fill("new", 4000, writing("x"))
    assert shelf.find("old") is None
    assert not (tmp_path / "old").exists()
    assert mapped.sum() == 499 * 250


@pytest.mark.parametrize(
    "harm",
    [
        lambda folder: (folder / "data").write_text("wHole"),
        lambda folder: (folder / "data").unlink(),
        lambda folder: (folder / "manifest.json").write_text("{"),
        lambda folder: (folder / "manifest.json").write_text('{"schema": "autopeft.cache/0", "files": {}}'),
        lambda folder: (folder / "manifest.json").unlink(),
    ],
)
def test_a_damaged_entry_is_thrown_away_and_made_anew(shelf, harm):
    harm(shelf.fill("k", 10, writing("whole")))
    fresh = Shelf(shelf.root, shelf.quota_bytes)
    assert fresh.find("k") is None
    assert (fresh.fill("k", 10, writing("whole")) / "data").read_text() == "whole"


def test_a_full_disk_leaves_nothing_behind(shelf):
    def fail(folder):
        (folder / "data").write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        shelf.fill("k", 10, fail)
    assert shelf.find("k") is None
    assert not [file for file in shelf.root.iterdir() if file.is_dir()]


def test_what_is_larger_than_the_quota_or_the_disk_is_refused_before_it_is_written(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="quota"):
        Shelf(tmp_path, 100).fill("k", 101, writing("x"))
    monkeypatch.setattr("workers.shelf.FREE_BYTES", 2**60)
    with pytest.raises(OSError, match="are free"):
        Shelf(tmp_path, 10**9).fill("k", 101, writing("x"))
