"""What ``trials.py`` measured, as text: seconds by k and by part, accuracies, losses apart, and ratios."""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path

WAYS = ("naive", "honest", "ours", "rungs")


def read(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def report(asked: argparse.Namespace) -> None:
    lines = list({(line["task"], line["way"], line["index"]): line for line in read(Path(asked.output))}.values())
    for task in dict.fromkeys(line["task"] for line in lines):
        here = [line for line in lines if line["task"] == task]
        ways = [way for way in WAYS if any(line["way"] == way for line in here)]
        print(f"\n{task}: CPU seconds a trial, imports, loading, cache fill and scoring included")
        by_k(here, ways)
        for way in ways:
            by_part(way, [line for line in here if line["way"] == way])
        ratios({(line["way"], line["index"]): line for line in here}, ways)


def by_k(lines: list[dict], ways: list[str]) -> None:
    print("\n| k | " + " | ".join(ways) + " |\n|---|" + "---|" * len(ways))
    for k in sorted({line["k"] for line in lines}):
        found = [[total(line) for line in lines if line["way"] == way and line["k"] == k] for way in ways]
        print(f"| {k} | " + " | ".join(f"{mean(cell):.2f} ({len(cell)})" if cell else "" for cell in found) + " |")
    print()


def by_part(way: str, lines: list[dict]) -> None:
    parts: dict[str, float] = defaultdict(float)
    for line in lines:
        for part, seconds in line["parts"].items():
            parts[part] += seconds / len(lines)
    told = ", ".join(f"{part} {seconds:.2f}" for part, seconds in parts.items())
    full = [line for line in lines if line.get("rungs", 2) > 1]
    accuracy = mean([line["accuracy"] for line in full])
    peak = max(line["peak_bytes"] for line in lines) / 1e9
    print(
        f"{way}: {len(lines)} trials, {len(full)} in full, {mean([total(line) for line in lines]):.2f} CPU s ({told}), "
        f"accuracy of full runs {accuracy:.4f} (best {max(line['accuracy'] for line in full):.4f}), peak {peak:.2f} GB"
    )


def ratios(by: dict[tuple[str, int], dict], ways: list[str]) -> None:
    for slow in ways:
        for quick in ways[ways.index(slow) + 1 :]:
            both = sorted(i for way, i in by if way == slow and (quick, i) in by)
            if both:
                ratio = sum(total(by[slow, i]) for i in both) / sum(total(by[quick, i]) for i in both)
                apart = max(abs(by[slow, i]["accuracy"] - by[quick, i]["accuracy"]) for i in both)
                print(
                    f"{slow} ÷ {quick} on the {len(both)} that both trained: {ratio:.2f}; accuracies within {apart:.4f}"
                )


def total(line: dict) -> float:
    return sum(line["parts"].values())


def mean(values: list[float]) -> float:
    return sum(values) / len(values)
