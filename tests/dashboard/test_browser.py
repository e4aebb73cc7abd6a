"""The way from a point of the front to exported files, in a real browser: Debian's chromium, driven by Playwright."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

from autopeft.store import Store
from dashboard import queries
from dashboard.launch import dashboard_command

CHROMIUM = Path("/usr/bin/chromium")
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

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]

PATIENCE = 120_000
"""Milliseconds until what must come is given up: the page is drawn from its top, and two cores may be busy."""


@pytest.fixture
def browser():
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield started
        started.close()


@pytest.fixture
def open_page(browser):
    def make(**options):
        page = browser.new_page(viewport={"width": 1500, "height": 1300}, **options)
        page.set_default_timeout(PATIENCE)
        return page

    return make


@pytest.fixture
def page(open_page):
    return open_page()


@pytest.fixture
def process(address, tmp_path):
    """Starts the dashboard on a free port; its process and its address come back."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    argv, environment = dashboard_command(address, port, headless=True)
    log = tmp_path / "server.log"
    with log.open("w") as stream:
        process = subprocess.Popen(argv, env={**os.environ, **environment}, stdout=stream, stderr=stream, cwd=tmp_path)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_for(f"{url}/_stcore/health", process, log)
        yield process, url
    finally:
        process.terminate()
        process.wait(timeout=120)


@pytest.fixture
def server(process):
    """The address of the dashboard."""
    return process[1]


def cpu_seconds(process):
    user, system = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def _wait_for(url, process, log):
    deadline = time.monotonic() + PATIENCE / 1000
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.25)
    raise AssertionError(f"the dashboard did not start: {log.read_text()}")


@pytest.fixture
def trained(make_record, address, tmp_path):
    """A finished study on a tiny checkpoint, every trial with the adapter and head that a worker would have saved."""
    import torch
    from transformers import BertConfig, BertModel

    from autopeft.adapters.models import backbone_shapes, load_classifier, model_spec
    from autopeft.adapters.plan import apply
    from autopeft.adapters.saving import artifact_sha256, save_adapter
    from autopeft.budget import Budget
    from autopeft.settings import artifact_root

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 64}
    folder = tmp_path / "checkpoint"
    BertModel(BertConfig(vocab_size=90, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    spec = model_spec(str(folder), "mean")
    root = artifact_root(address)

    def save(order):
        classifier = load_classifier(spec, 3, False, seed=order.number)
        apply(classifier.model, order.configuration, seed=order.number)
        relative = f"{order.study.name}/trial-{order.number}/attempt-{order.attempt}"
        save_adapter(classifier.model, root / relative)
        classifier.save_head(root / relative)
        return {"artifact": relative, "sha256": artifact_sha256(root / relative)}

    shapes = backbone_shapes(str(folder))
    make_record(count=8, finished=30, save=save, backbone=shapes, model=spec, budget=Budget(3000, "3k"))
    return queries.board(address, "aspects-1")


def chosen_in(page, number):
    page.get_by_role("heading", name=f"Trial {number}", exact=True).wait_for()


def test_a_click_on_a_front_point_shows_its_score_sheet_and_its_export_downloads(
    page, process, server, trained, address, tmp_path
):
    first, last = trained.front[0], trained.front[-1]
    assert first.number != last.number
    expect = pytest.importorskip("playwright.sync_api").expect
    foreign = []
    page.on("request", lambda request: foreign.append(request.url) if "127.0.0.1" not in request.url else None)
    page.goto(f"{server}/front")
    chosen_in(page, last.number)
    settled(page)  # what is drawn below the heading is no part of the click
    began = cpu_seconds(process[0])
    page.locator(f".vega-embed path[aria-label^='trial {first.number}:']").first.click()
    chosen_in(page, first.number)
    assert cpu_seconds(process[0]) - began < 1.5, "a click shows its trial"  # measured: 0.2
    page.wait_for_url(f"**trial={first.number}**")
    plan = queries.configuration(trained, address, first.number)
    ranks = [layer.at("query", "lora") for layer in plan.layers]
    cells = page.locator(".score-sheet tbody:not(.strips) tr").first.locator("td")
    for cell, rank in enumerate(ranks):  # the page is drawn from its top: the heading changes before the sheet
        expect(cells.nth(cell)).to_have_text(str(rank.rank) if rank else "·", timeout=PATIENCE)

    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download() as download:
        page.get_by_role("button", name=f"Download aspects-1-{first.number}-peft.zip").click()
    content = Path(download.value.path()).read_bytes()
    assert (
        content == from_the_command(address, first.number, tmp_path / f"aspects-1-{first.number}-peft.zip").read_bytes()
    )
    folder = from_the_command(address, first.number, tmp_path / "folder")
    with zipfile.ZipFile(io.BytesIO(content)) as opened:
        files = {name.partition("/")[2]: opened.read(name) for name in opened.namelist()}
    assert files == {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "score_sheet.svg"} <= set(files)
    assert json.loads(files["verify.json"])["passed"] is True
    assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []


def from_the_command(address, number, output):
    """What ``autopeft export`` writes for the trial."""
    command = [sys.executable, "-P", "-m", "autopeft.cli", "export", str(number), "--to", "peft", "-o", str(output)]
    subprocess.run([*command, "--db", address], check=True, capture_output=True)
    return output


def test_the_page_follows_a_running_search_by_itself(page, server, make_record, address):
    page.goto(server)
    page.get_by_text("no database").wait_for()
    make_record(count=1, finished=0)
    page.get_by_text("No trial is finished yet").wait_for()
    with Store.open(address) as store:
        store.stop("aspects-1")
    page.get_by_text("7 cancelled").first.wait_for()


def test_a_database_that_goes_away_is_said_and_comes_back(page, server, make_record, tmp_path):
    make_record(count=6, finished=13)
    page.goto(server)
    page.get_by_text("13 / 13").wait_for()
    (tmp_path / "record.db").rename(tmp_path / "away.db")
    page.get_by_text("as it was last read").wait_for()
    page.get_by_text("13 / 13").wait_for()
    (tmp_path / "away.db").rename(tmp_path / "record.db")
    page.get_by_text("as it was last read").wait_for(state="detached")


def test_a_trial_is_chosen_and_exported_by_keyboard_alone(page, server, trained):
    page.goto(f"{server}/front")
    second, best = trained.front[-2:]
    chosen_in(page, best.number)
    tab_to(page, lambda role, name: role == "combobox" and "type its number" in name)
    page.keyboard.press("ArrowDown")
    page.get_by_role("option").first.wait_for()
    page.keyboard.press("Enter")
    chosen_in(page, second.number)
    page.wait_for_url(f"**trial={second.number}**")
    tab_to(page, lambda role, name: name == "Export")
    page.keyboard.press("Enter")
    page.get_by_text("Verified:").wait_for()
    tab_to(page, lambda role, name: name.startswith("Download aspects-1"))
    with page.expect_download() as download:
        page.keyboard.press("Enter")
    assert zipfile.is_zipfile(download.value.path())


def tab_to(page, wanted, most=120):
    """Presses Tab until what has the focus is wanted; what is drawn later, or anew, would be passed over."""
    settled(page)
    for _ in range(most):
        page.keyboard.press("Tab")
        role, name = page.evaluate(_FOCUSED)
        if wanted(role, name.strip()):
            return
    raise AssertionError("the keyboard does not get there")


_FOCUSED = """() => {
  const one = document.activeElement;
  const label = one.getAttribute('aria-label') || one.innerText || '';
  // Material icons are text too
  const words = label.split('\\n').filter(line => !/^[a-z_]+$/.test(line)).join(' ');
  return [one.getAttribute('role') || one.tagName, words];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_of_every_page_has_contrast_aa(open_page, server, make_record, scheme):
    make_record(count=12, finished=17, failing=(9,))
    page = open_page(color_scheme=scheme)
    for name in ("overview", "front", "trial", "compare", "layers", "health", "workers", "studies"):
        page.goto(f"{server}/{'' if name == 'overview' else name}")
        page.get_by_role("heading", level=1).wait_for()
        page.locator(
            "[data-testid=stMain] :is(.vega-embed text, .score-sheet, [data-testid=stDataFrame])"
        ).first.wait_for()
        found = settled(page)
        assert len(found) > 8, name
        low = sorted({(round(ratio, 2), text) for text, ratio, large in found if ratio < (3 if large else 4.5)})
        assert not low, f"{name}, {scheme}: {low[:8]}"


def settled(page):
    """The texts of the page as soon as its script has ended, nothing is a grey box, and two looks see the same."""
    found, deadline = None, time.monotonic() + PATIENCE / 1000
    while time.monotonic() < deadline:
        page.locator("[data-testid=stApp][data-test-script-state=notRunning]").wait_for()
        page.wait_for_function("() => !document.querySelector('[data-testid=stSkeleton]')")
        before, found = found, page.evaluate(_TEXTS)
        if found == before:
            return found
        page.wait_for_timeout(300)
    raise AssertionError("the page goes on changing")


_TEXTS = (Path(__file__).parent / "contrast.js").read_text()
