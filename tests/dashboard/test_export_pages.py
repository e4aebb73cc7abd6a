"""Exports from a page, before they are made and after."""

import pytest

from dashboard import exporting

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture
def exported(monkeypatch):
    """Replaces the export by one that notes what was asked."""
    asked = []

    def export(*arguments):
        asked.append(arguments)
        return exporting.Packed("aspects-1-1-peft.zip", b"PK", ("README.md", "verify.json"))

    monkeypatch.setattr(exporting, "export", export)
    return asked


@pytest.mark.parametrize("name", ["front", "trial"])
def test_an_export_offers_what_the_command_wrote(make_record, address, exported, name, open_page):
    make_record(count=6, finished=13)
    page = open_page(name, trial=1)
    assert "autopeft export 1 --to peft" in page.code[0].value
    page.button(key="export").click().run()
    assert not page.exception
    assert exported == [(address, "aspects-1", 1, "peft", False)]
    assert "2 files" in page.success[0].value
    assert page.get("download_button")


def test_what_a_target_cannot_hold_is_said_before_and_has_to_be_allowed(
    make_record, address, exported, open_page, shown
):
    make_record(count=6, finished=13)
    page = open_page(trial=1, target="axolotl")
    assert "axolotl cannot hold: the head" in shown(page)
    assert page.button(key="export").disabled
    page.checkbox(key="lossy").check().run()
    page.button(key="export").click().run()
    assert exported == [(address, "aspects-1", 1, "axolotl", True)]
    assert page.code[0].value.startswith("autopeft export 1 --to axolotl")
    assert "--lossy" in page.code[0].value


def test_an_export_that_fails_says_why(make_record, monkeypatch, open_page):
    from autopeft.errors import ExportError

    make_record(count=6, finished=13)

    def export(*arguments):
        raise ExportError("verification failed: outputs differ by 0.1")

    monkeypatch.setattr(exporting, "export", export)
    page = open_page(trial=1)
    page.button(key="export").click().run()
    assert not page.exception
    assert "verification failed" in page.error[0].value
    assert not page.get("download_button")
