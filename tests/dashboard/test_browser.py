"""The way from a point of the front to exported files, in a real browser: Debian's chromium, driven by Playwright."""

import io
import json
import os
import re
import socket
import subprocess
import time
import urllib.request
import zipfile
from pathlib import Path

import pytest

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

pytestmark = [pytest.mark.browser, pytest.mark.timeout(300)]


@pytest.fixture
def page():
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield browser.new_page(viewport={"width": 1500, "height": 1300})
        browser.close()


@pytest.fixture
def server(address, tmp_path):
    """Starts the dashboard on a free port; its address and its log come back."""
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
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


def _wait_for(url, process, log):
    for _ in range(120):
        if process.poll() is not None:
            break
        try:
            with urllib.request.urlopen(url, timeout=1):
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
    return queries.snapshot(address, "aspects-1")


def test_a_click_on_a_front_point_shows_its_score_sheet_and_its_export_downloads(page, server, trained):
    first, last = trained.standing.front[0], trained.standing.front[-1]
    assert first.number != last.number
    foreign = []
    page.on("request", lambda request: foreign.append(request.url) if "127.0.0.1" not in request.url else None)
    page.goto(server)
    page.get_by_role("heading", name=f"Trial {last.number}", exact=True).wait_for(timeout=60_000)
    page.locator(f".vega-embed path[aria-label^='trial {first.number}:']").first.click(timeout=30_000)
    page.get_by_role("heading", name=f"Trial {first.number}", exact=True).wait_for(timeout=30_000)
    assert f"trial={first.number}" in page.url
    cells = page.locator(".score-sheet tbody tr").first.locator("td").all_inner_texts()
    ranks = [layer.at("query", "lora") for layer in first.configuration.layers]
    assert cells[:4] == [str(rank.rank) if rank else "·" for rank in ranks]

    page.get_by_role("button", name="Export", exact=True).click()
    with page.expect_download(timeout=120_000) as download:
        page.get_by_role("button", name=f"Download aspects-1-{first.number}-peft.zip").click(timeout=120_000)
    with zipfile.ZipFile(io.BytesIO(Path(download.value.path()).read_bytes())) as archive:
        names = {Path(name).name for name in archive.namelist()}
        verify = json.loads(archive.read(next(name for name in archive.namelist() if name.endswith("verify.json"))))
    assert {"adapter_config.json", "adapter_model.safetensors", "head.safetensors", "score_sheet.svg"} <= names
    assert verify["passed"] is True
    assert [url for url in foreign if not url.startswith(("data:", "blob:"))] == []


def test_the_page_follows_a_running_search_by_itself(page, server, make_record, address):
    from autopeft.store import Store

    page.goto(server)
    page.get_by_text("no database").wait_for(timeout=60_000)
    make_record(count=1, finished=0)
    page.get_by_text("No trial is finished yet").wait_for(timeout=30_000)
    with Store.open(address) as store:
        store.stop("aspects-1")
    page.get_by_text("7 cancelled").wait_for(timeout=30_000)


def test_a_trial_is_chosen_by_keyboard_alone(page, server, trained):
    page.goto(server)
    second, best = trained.standing.front[-2:]
    page.get_by_role("heading", name=f"Trial {best.number}", exact=True).wait_for(timeout=60_000)
    page.get_by_role("combobox", name=re.compile("Trial$")).focus()
    for key in ("ArrowDown", "Enter"):
        page.keyboard.press(key)
        page.wait_for_timeout(500)
    page.get_by_role("heading", name=f"Trial {second.number}", exact=True).wait_for(timeout=30_000)
    assert f"trial={second.number}" in page.url
