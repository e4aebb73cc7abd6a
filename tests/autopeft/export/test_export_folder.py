"""Exports as folders: whole or absent, complete, and read back as what was exported."""

import hashlib
import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from autopeft.errors import ConfigurationError, ExportError, NotFoundError
from autopeft.export import TARGETS, export_trial
from autopeft.export.folder import publish
from autopeft.study import Study, TrialState
from search_spaces.configuration import Configuration, LayerPlan, Training


@pytest.mark.parametrize("target", TARGETS)
def test_every_export_holds_plan_study_sheet_card_and_verification(target, finished, tmp_path: Path):
    done = finished("distilbert", "mean")
    folder = export_trial(
        done.study, done.trial, done.measurement, done.artifacts, target, tmp_path / "new" / "out", lossy=True
    )
    configuration = Configuration.from_json(json.loads((folder / "configuration.json").read_text()))
    assert configuration == done.trial.configuration
    assert Study.from_json(json.loads((folder / "study.json").read_text())).to_json() == done.study.to_json()
    assert ElementTree.parse(folder / "score_sheet.svg").getroot().tag.endswith("svg")
    record = json.loads((folder / "verify.json").read_text())
    assert record["passed"] is True
    others = {path.name for path in folder.iterdir()} - {"verify.json"}
    assert set(record["files"]) == others
    for name, sha256 in record["files"].items():
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == sha256
    assert not [path for path in folder.parent.iterdir() if path != folder]


@pytest.mark.parametrize("target", TARGETS)
def test_the_card_says_where_it_comes_from_and_nothing_in_it_is_markup(target, finished, tmp_path: Path):
    done = finished("bert-without-pooler", "mean")
    where = done.artifacts, target, tmp_path / "out"
    folder = export_trial(done.study, done.trial, done.measurement, *where, lossy=True)
    card = (folder / "README.md").read_text()
    for fact in ("0.8750", "trial 7 of aspects-1", "seed 3", "50%", done.trial.digest, "torch", "score_sheet.svg"):
        assert fact in card
    assert "aspects \\| &lt;b&gt;" in card
    assert "<b>" not in card


def test_importing_an_export_gives_what_was_exported(finished, tmp_path):
    import torch

    from autopeft.export.native import load_model, read_export
    from autopeft.export.trained import fixed_batch, load_trained

    done = finished("roberta", "stock")
    folder = export_trial(done.study, done.trial, done.measurement, done.artifacts, "autopeft", tmp_path / "out")
    imported = read_export(folder)
    assert imported.configuration == done.trial.configuration
    assert imported.study.to_json() == done.study.to_json()
    assert imported.provenance["values"] == dict(done.measurement.values)
    trained = load_trained(done.study, done.trial, done.measurement, done.artifacts)
    batch = fixed_batch(trained.classifier)
    with torch.no_grad():
        assert torch.equal(load_model(folder)(batch), trained.classifier(batch))


def test_the_head_alone_has_a_lossless_export(finished, tmp_path):
    from autopeft.export.native import read_export

    empty = Configuration((LayerPlan(),) * 2, Training(1e-3))
    done = finished("roberta", "mean", empty)
    folder = export_trial(done.study, done.trial, done.measurement, done.artifacts, "autopeft", tmp_path / "out")
    assert read_export(folder).configuration == empty


def test_a_plan_changed_by_hand_is_refused_on_import(finished, tmp_path):
    from autopeft.export.native import read_export

    done = finished("roberta", "mean")
    folder = export_trial(done.study, done.trial, done.measurement, done.artifacts, "autopeft", tmp_path / "out")
    changed = json.loads((folder / "configuration.json").read_text())
    changed["training"]["learning_rate"] = 0.1
    (folder / "configuration.json").write_text(json.dumps(changed))
    with pytest.raises(ExportError, match="changed after the export"):
        read_export(folder)
    with pytest.raises(NotFoundError, match="autopeft export"):
        read_export(tmp_path)


def test_only_complete_trials_and_known_targets_are_exported(finished, tmp_path):
    done = finished("roberta", "mean")
    running = replace(done.trial, state=TrialState.RUNNING)
    with pytest.raises(ExportError, match="RUNNING"):
        export_trial(done.study, running, done.measurement, done.artifacts, "peft", tmp_path / "out")
    with pytest.raises(ConfigurationError, match=r"peft, script, .*, autopeft"):
        export_trial(done.study, done.trial, done.measurement, done.artifacts, "onnx", tmp_path / "out")


def write_marker(folder):
    (folder / "verify.json").write_text("{}")
    (folder / "new").touch()


def test_an_empty_folder_is_taken_and_a_used_one_is_not(tmp_path):
    empty, used, file = tmp_path / "empty", tmp_path / "used", tmp_path / "file"
    empty.mkdir()
    used.mkdir()
    (used / "thesis.tex").touch()
    file.touch()
    assert publish(write_marker, empty, overwrite=False) == empty
    for overwrite in (False, True):
        with pytest.raises(ConfigurationError, match="no earlier export"):
            publish(write_marker, used, overwrite)
        with pytest.raises(ConfigurationError, match="not a folder"):
            publish(write_marker, file, overwrite)
    assert [path.name for path in used.iterdir()] == ["thesis.tex"]


def test_an_earlier_export_is_replaced_only_when_asked(tmp_path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "verify.json").write_text("{}")
    (output / "old").touch()
    with pytest.raises(ConfigurationError, match="--overwrite"):
        publish(write_marker, output, overwrite=False)
    publish(write_marker, output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["new", "verify.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_build_that_fails_leaves_the_earlier_export_as_it_was(tmp_path):
    output = tmp_path / "out"
    publish(write_marker, output, overwrite=False)

    def fail(folder):
        (folder / "half").touch()
        raise OSError(28, "No space left on device")

    with pytest.raises(ConfigurationError, match="No space left"):
        publish(fail, output, overwrite=True)
    assert sorted(path.name for path in output.iterdir()) == ["new", "verify.json"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_importing_the_exporters_loads_no_torch():
    code = "import sys, autopeft.export; print({'torch', 'transformers', 'peft'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
