"""What the dashboard costs at 200, 2,000 and 20,000 trials, and optuna-dashboard on the same trials beside it.

``python -P benchmarks/dashboard.py --sizes 200 2000 20000`` for ours; ``--peer PYTHON`` names an interpreter that has
optuna and optuna-dashboard, and measures it up to ``--peer-most`` trials in the same run. ``--turns N`` instead opens
the least and the most of the sizes in turns, N times, so that both meet the same load of a busy machine. Every figure
is of a page that is opened anew in a browser whose caches are warm, on a server that has shown it before. Needs
chromium and Playwright. Qualities are invented; nothing is trained. (-P: this file must not be taken for the package it
measures.)
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from playwright.sync_api import Browser, BrowserContext, Page, sync_playwright
from sqlalchemy import insert

from autopeft.budget import Budget
from autopeft.store import Store, tables
from autopeft.study import PARAMETERS, Direction, Fidelity, ModelSpec, Objective, Study
from dashboard.launch import dashboard_command
from search_spaces.backbone import Backbone, ModuleShape
from search_spaces.presets import layerwise

LAYERS = 13
"""Three rank groups a layer and the learning rate: 40 parameters."""

CHROMIUM = "/usr/bin/chromium"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LONGEST_SECONDS = 420


def backbone() -> Backbone:
    sites = {"query": (384, 384), "key": (384, 384), "value": (384, 384), "output": (384, 384)}
    sites |= {"up": (384, 1536), "down": (1536, 384)}
    layers = tuple(
        tuple(ModuleShape(site, f"layer.{index}.{site}", *shape) for site, shape in sites.items())
        for index in range(LAYERS)
    )
    return Backbone("made-up", "bert", 384, 40_000_000, layers)


def study() -> Study:
    shapes = backbone()
    objectives = (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE))
    space = layerwise(shapes, (2e-4, 1e-2))
    return Study(
        "bench-1", ModelSpec("made-up", "mean", "0" * 64), shapes, {"source": "made-up"}, "made-up", "accuracy", 0.4,
        space, objectives, Budget(400_000, "1%"), Fidelity(100, 16, 64), 3e-3, "random", 8, 20_000, None, 0, {},
    )  # fmt: skip


def fill(url: str, count: int) -> list[dict[str, Any]]:
    """Writes a finished study of ``count`` trials; their parameters and values come back, for the peer."""
    asked, generator = study(), np.random.default_rng(0)
    space, rows = asked.search_space, []
    units = generator.random((count, space.dimension_count + 1))
    points = space.place_points(units, asked.budget.parameters)
    costs = space.point_costs(points)
    noise = generator.normal(0, 0.02, count)
    tried: Counter[str] = Counter()
    qualities = np.round(0.45 + 0.45 * (costs / asked.budget.parameters) ** 0.25 + noise, 4)
    with Store.open(url, create=True) as store:
        store.create_study(asked)
        with store._database.writing() as connection:
            for number, (point, cost, quality) in enumerate(zip(points, costs, qualities, strict=True)):
                plan = space.decode(point)
                values = {"accuracy": float(quality), PARAMETERS: int(cost), "loss": 0.5, "train_seconds": 9.5}
                repeat = tried[plan.digest]
                rows.append({"point": point, "values": values, "plan": plan, "number": number, "replicate": repeat})
                tried[plan.digest] += 1
            for start in range(0, count, 500):
                _write(connection, rows[start : start + 500])
            _write_fronts(connection, rows)
    return rows


def _write(connection: Any, rows: list[dict[str, Any]]) -> None:
    now = time.time()
    same = {
        "study_id": 1,
        "replicate": 0,
        "origin": "model",
        "label": None,
        "state": "COMPLETE",
        "rung": 1,
        "attempt": 1,
    }
    same |= {"priority": 0, "not_before": 0.0, "owner": None, "expires_at": None, "cancel_requested": False}
    same |= {"failures": 0, "lost": 0, "preempted": 0, "error": None, "created_at": now}
    trials = [
        same
        | {"number": row["number"], "configuration": row["plan"].to_json(), "digest": row["plan"].digest}
        | {"finished_at": now + row["number"], "replicate": row["replicate"]}
        for row in rows
    ]
    connection.execute(insert(tables.trial), trials)
    same = {"rung": 0, "attempt": 1, "curve": [[1, 1.0], [99, 0.5]], "details": {}, "created_at": now}
    measured = [
        same | {"trial_id": row["number"] + 1, "values": row["values"], "correct": _marks(row["values"]["accuracy"])}
        for row in rows
    ]
    connection.execute(insert(tables.measurement), measured)
    same = {"study_id": 1, "attempt": 1, "kind": "reported", "detail": {}, "at": now}
    connection.execute(insert(tables.event), [same | {"trial_id": row["number"] + 1} for row in rows])


def _marks(accuracy: float) -> str:
    return ("1" * round(600 * accuracy)).ljust(600, "0")


def _write_fronts(connection: Any, rows: list[dict[str, Any]]) -> None:
    """A recorded front after every twentieth trial, as a long search leaves them."""
    counts = range(20, len(rows) + 1, 20)
    same = {"study_id": 1, "created_at": 0.0}
    found = [
        same | {"hypervolume": 0.6 * (1 - 1 / (2 + count)), "completed": count, "seconds": 9.5 * count}
        for count in counts
    ]
    connection.execute(insert(tables.front), found)


def fill_peer(python: str, url: str, rows: list[dict[str, Any]]) -> None:
    """The same trials in an Optuna study."""
    names = [ordinal.name for ordinal in study().search_space.ordinals]
    sizes = {ordinal.name: list(ordinal.values) for ordinal in study().search_space.ordinals}
    data = [
        {
            "params": {name: sizes[name][index] for name, index in zip(names, row["point"][0], strict=True)}
            | {"learning rate": row["point"][1]},
            "values": [row["values"]["accuracy"], row["values"][PARAMETERS]],
        }
        for row in rows
    ]
    script = (
        "import json,sys,optuna\n"
        "optuna.logging.set_verbosity(optuna.logging.ERROR)\n"
        "job=json.load(sys.stdin)\n"
        "D=optuna.distributions\n"
        "space={n:D.IntDistribution(0,max(v)) for n,v in job['sizes'].items()}\n"
        "space['learning rate']=D.FloatDistribution(1e-4,1e-1,log=True)\n"
        "s=optuna.create_study(storage=job['url'],study_name='bench-1',directions=['maximize','minimize'])\n"
        "s.add_trials([optuna.trial.create_trial(params=r['params'],distributions=space,values=r['values'])"
        " for r in job['rows']])\n"
    )
    job = json.dumps({"url": url, "sizes": sizes, "rows": data})
    subprocess.run([python, "-W", "ignore", "-c", script], input=job, text=True, check=True)


@contextmanager
def served(argv: list[str], port: int, environment: dict[str, str], ready: str) -> Iterator[int]:
    """The process id of a server that answers."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(argv, env=environment, stdout=log, stderr=log)
        try:
            for _ in range(240):
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}{ready}", timeout=1):
                        break
                except OSError:
                    time.sleep(0.25)
            yield process.pid
        finally:
            process.terminate()
            process.wait(timeout=30)


def cpu_seconds(pid: int) -> float:
    """CPU seconds of the process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Largest resident memory of the process so far."""
    status = Path(f"/proc/{pid}/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


class Traffic:
    """Counts what a page receives: frames of its sockets and bodies that no cache held."""

    def __init__(self, page: Page) -> None:
        self.received = 0
        session = page.context.new_cdp_session(page)
        session.send("Network.enable")
        session.on("Network.loadingFinished", lambda event: self._add(event["encodedDataLength"]))
        session.on("Network.webSocketFrameReceived", lambda event: self._add(_frame_bytes(event["response"])))

    def _add(self, count: float) -> None:
        self.received += int(count)


def _frame_bytes(frame: dict[str, Any]) -> float:
    """Length of a frame; binary ones come as base 64."""
    length = len(frame["payloadData"])
    return length * 3 / 4 if frame["opcode"] == 2 else length


def opened(context: BrowserContext, url: str, plot: str, pid: int) -> dict[str, float]:
    """What opening ``url`` in a new tab costs until ``plot`` is there, and until the server is quiet again."""
    page = context.new_page()
    traffic, cpu, began = Traffic(page), cpu_seconds(pid), time.monotonic()
    page.goto(url, timeout=LONGEST_SECONDS * 1000)
    page.locator(plot).first.wait_for(timeout=LONGEST_SECONDS * 1000, state="attached")
    first = time.monotonic() - began
    _settle(page, pid)
    found = {"server_cpu_seconds": cpu_seconds(pid) - cpu, "first_plot_seconds": first, "bytes": traffic.received}
    page.close()
    return found


def _settle(page: Page, pid: int) -> None:
    """Waits until the server has done nothing for half a second, so that what trails behind counts too."""
    last = cpu_seconds(pid)
    for _ in range(120):
        page.wait_for_timeout(500)
        now = cpu_seconds(pid)
        if now - last < 0.02:
            return
        last = now


def measure_ours(browser: Browser, folder: Path, count: int) -> dict[str, Any]:
    url = f"sqlite:///{folder / f'ours-{count}.db'}"
    port = _free_port()
    argv, environment = dashboard_command(url, port, headless=True)
    with served(argv, port, environment, "/_stcore/health") as pid:
        address, plot = f"http://127.0.0.1:{port}/front", ".vega-embed path[aria-label^='trial ']"
        context = browser.new_context(viewport={"width": 1500, "height": 1300})
        cold = opened(context, address, plot, pid)
        runs = [opened(context, address, plot, pid) for _ in range(3)]
        clicks = [_click(context, address) for _ in range(2)]
        return {
            "tool": "autopeft",
            "trials": count,
            "cold_server_cpu_seconds": round(cold["server_cpu_seconds"], 2),
            **_middle(runs),
            "click_to_detail_seconds": round(min(clicks), 2),
            "peak_memory_megabytes": round(peak_bytes(pid) / 1e6),
        }


def measure_turns(browser: Browser, folder: Path, counts: tuple[int, int], turns: int) -> dict[str, Any]:
    """First plots of two sizes opened in turns, and how many times as long the second one takes, pair by pair."""
    plot = ".vega-embed path[aria-label^='trial ']"
    with ExitStack() as stack:
        pages = []
        for count in counts:
            port = _free_port()
            argv, environment = dashboard_command(f"sqlite:///{folder / f'ours-{count}.db'}", port, headless=True)
            pid = stack.enter_context(served(argv, port, environment, "/_stcore/health"))
            pages.append((browser.new_context(viewport={"width": 1500, "height": 1300}), port, pid))

        def first_plot(context: BrowserContext, port: int, pid: int) -> float:
            return opened(context, f"http://127.0.0.1:{port}/front", plot, pid)["first_plot_seconds"]

        for page in pages:
            first_plot(*page)
        pairs = np.array([[first_plot(*page) for page in pages] for _ in range(turns)])
    ratios = pairs[:, 1] / pairs[:, 0]
    return {
        "trials": counts,
        "first_plot_seconds": np.round(np.median(pairs, axis=0), 2).tolist(),
        "median_ratio": round(float(np.median(ratios)), 2),
        "ratios": np.round(np.sort(ratios), 2).tolist(),
    }


def _click(context: BrowserContext, address: str) -> float:
    """Seconds from a click on a point of the front to its score sheet."""
    page = context.new_page()
    page.goto(address)
    page.locator(".vega-embed path[aria-label*='on the front']").first.wait_for(timeout=60_000)
    page.wait_for_timeout(2500)
    number, x, y = page.evaluate(_UPPERMOST)
    began = time.monotonic()
    page.mouse.click(x, y)
    page.get_by_role("heading", name=f"Trial {number}", exact=True).wait_for(timeout=60_000)
    page.locator(".score-sheet").first.wait_for(timeout=60_000)
    seconds = time.monotonic() - began
    page.close()
    return seconds


_UPPERMOST = """() => {
  // a member of the front that no other point covers, and that is not chosen already
  for (const path of document.querySelectorAll(".vega-embed path[aria-label*='on the front']")) {
    const box = path.getBoundingClientRect();
    const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
    const number = path.getAttribute('aria-label').match(/^trial (\\d+)/)[1];
    const chosen = document.body.innerText.includes(`Trial ${number}\\n`);
    if (document.elementFromPoint(x, y) === path && !chosen) return [number, x, y];
  }
}"""


def measure_peer(browser: Browser, folder: Path, count: int, python: str) -> dict[str, Any]:
    port = _free_port()
    command = str(Path(python).with_name("optuna-dashboard"))
    argv = [command, f"sqlite:///{folder / f'peer-{count}.db'}", "--port", str(port), "--host", "127.0.0.1"]
    with served(argv, port, dict(os.environ), "/dashboard") as pid:
        address, plot = (
            f"http://127.0.0.1:{port}/dashboard/studies/1",
            ".js-plotly-plot .point, .js-plotly-plot .gl-canvas",
        )
        context = browser.new_context(viewport={"width": 1500, "height": 1300})
        opened(context, address, plot, pid)
        runs = [opened(context, address, plot, pid) for _ in range(3)]
        return {
            "tool": "optuna-dashboard",
            "trials": count,
            **_middle(runs),
            "peak_memory_megabytes": round(peak_bytes(pid) / 1e6),
        }


def _middle(runs: list[dict[str, float]]) -> dict[str, float]:
    """The median of each figure."""
    return {
        "server_cpu_seconds": round(float(np.median([run["server_cpu_seconds"] for run in runs])), 2),
        "first_plot_seconds": round(float(np.median([run["first_plot_seconds"] for run in runs])), 2),
        "kilobytes": round(float(np.median([run["bytes"] for run in runs])) / 1000),
    }


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=[200, 2000, 20_000])
    parser.add_argument("--peer", help="interpreter with optuna and optuna-dashboard")
    parser.add_argument("--peer-most", type=int, default=2000, help="most trials for the peer")
    parser.add_argument("--turns", type=int, help="only first plots, of the least and the most trials in turns")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        folder = Path(name)
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        jobs: list[Callable[[], dict[str, Any]]] = []
        for count in asked.sizes:
            rows = fill(f"sqlite:///{folder / f'ours-{count}.db'}", count)
            if not asked.turns:
                jobs.append(lambda count=count: measure_ours(browser, folder, count))
            if asked.peer and count <= asked.peer_most:
                fill_peer(asked.peer, f"sqlite:///{folder / f'peer-{count}.db'}", rows)
                jobs.append(lambda count=count: measure_peer(browser, folder, count, asked.peer))
        if asked.turns:
            ends = (min(asked.sizes), max(asked.sizes))
            jobs.append(lambda: measure_turns(browser, folder, ends, asked.turns))
        for job in jobs:
            print(json.dumps(job()), flush=True)
        browser.close()


if __name__ == "__main__":
    sys.exit(main())
