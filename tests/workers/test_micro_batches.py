"""A step in several forward passes is the same step, and what a trial that ran out of memory is tried with."""

from dataclasses import replace

import pytest
import torch

from autopeft.errors import OutOfMemoryError
from autopeft.fidelity import Fidelity
from autopeft.store import Failure, Store
from autopeft.study import Origin, Proposal, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers import loop
from workers.backbones import load_resident
from workers.batches import training_order
from workers.evaluate import evaluate
from workers.inside import Inside
from workers.loop import WorkerSettings
from workers.training import TrainingRun, counted

CPU = torch.device("cpu")
WHOLE = Fidelity(12, 8, 32)


def trained(study, accumulation, resident=None):
    """Curve and trained values of a run in so many passes a step."""
    resident = resident or load_resident(study, CPU)
    plan = uniform(study.backbone, study.backbone.roles, Lora(2, 4.0), 2e-2)
    resident.classifier.adapt(plan, 1)
    order = training_order(resident.train.lengths, study.fidelity.batch_size, study.fidelity.steps, 0, 0)
    run = TrainingRun(resident.classifier, resident.train, order, 2e-2, accumulation=accumulation)
    run.run(len(order))
    values = {name: value.detach().clone() for name, value in resident.classifier.trained_parameters().items()}
    resident.classifier.strip()
    return run.curve, values


@pytest.mark.parametrize("accumulation", [2, 3, 8])
@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_a_step_in_pieces_is_the_same_step(make_study, regression_folder, accumulation, kind):
    study = make_study(task=None if kind == "classes" else regression_folder)
    whole, values = trained(study, 1)
    pieces, others = trained(study, accumulation)
    for (_, loss), (_, other) in zip(whole, pieces, strict=True):
        assert other == pytest.approx(loss, abs=1e-5)
    for name, value in values.items():
        assert torch.allclose(others[name], value, atol=1e-4), name


def test_the_loss_of_answers_is_a_mean_over_tokens_not_over_pieces():
    labels = torch.tensor([[-100, 3, 4, 5], [-100, 3, -100, -100]])
    assert counted(labels) == 4
    assert counted(torch.tensor([0, 1, 2])) == 3


def test_the_option_decides_about_the_passes(make_study, make_order, tmp_path, monkeypatch):
    widths = []
    study = make_study(fidelity=replace(WHOLE, micro_batch=3))
    resident = load_resident(study, CPU)
    watch_widths(resident.classifier, monkeypatch, widths)
    measurement = evaluate(make_order(study), resident, tmp_path)
    training = widths[: 3 * study.fidelity.steps]
    assert max(training) == 3
    assert sum(training) == 8 * study.fidelity.steps
    assert measurement.details["training"] == {"accumulation": 3}


def watch_widths(classifier, monkeypatch, widths, most=None):
    """Notes how many rows each forward pass has, and runs out of memory above ``most``."""
    forward = classifier.forward

    def watched(batch, *more, **options):
        rows = len(batch["input_ids"])
        widths.append(rows)
        if most is not None and rows > most:
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {rows} GiB")
        return forward(batch, *more, **options)

    monkeypatch.setattr(classifier, "forward", watched)


class TestOutOfMemory:
    """Fault 15, from the planted error to the record."""

    @pytest.fixture
    def store(self, tmp_path, make_study):
        with Store.open(f"sqlite:///{tmp_path}/record.db", create=True) as store:
            study = make_study(fidelity=Fidelity(12, 8, 32, (4,)))
            store.create_study(study)
            plan = uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
            epoch = store.acquire_driver(study.name, "driver", 3600)
            store.enqueue(study.name, epoch, [Proposal(plan, Origin.MODEL)])
            yield store

    @pytest.fixture
    def work(self, store, tmp_path, monkeypatch):
        """Runs a worker whose device has room for ``most`` rows in a pass; the widths of its passes come back."""
        monkeypatch.setattr(loop, "IDLE_POLL_SECONDS", (0.01, 0.01))
        monkeypatch.setattr("autopeft.store.blame.wait_seconds", lambda _count: 0.0)

        def run(most):
            widths = []
            inside = Inside("cpu", tmp_path)
            study = store.study()
            resident = inside._residents.of(study)
            watch_widths(resident.classifier, monkeypatch, widths, most)
            settings = WorkerSettings("w", study.name, idle_seconds=0.1)
            loop.run_worker(lambda: Store.open(f"sqlite:///{tmp_path}/record.db"), settings, inside)
            return widths

        return run

    def test_15_it_is_tried_once_more_in_half_the_rows(self, store, work):
        widths = work(16)  # scoring takes up to 32 rows, training 8
        name = store.study().name
        first, second = store.attempts(name, 0)
        assert (first.failure, second.failure) == (Failure.GPU_MEMORY, None)
        trial = store.trial(name, 0)
        assert (trial.state, trial.error) == (TrialState.PAUSED, None)
        assert store.measurement(name, 0).details["training"] == {"accumulation": 2}
        too_wide = next(place for place, rows in enumerate(widths) if rows > 16)
        assert max(widths[too_wide + 1 :]) <= 16

    def test_15_twice_is_a_failure_with_its_reason(self, store, work):
        work(3)
        name = store.study().name
        assert store.trial(name, 0).state is TrialState.FAILED
        assert "out of memory" in store.trial(name, 0).error
        assert store.failures(name) == {Failure.GPU_MEMORY: 2}

    def test_smaller_pieces_give_the_same_numbers(self, make_study, make_order, tmp_path):
        study = make_study()
        resident = load_resident(study, CPU)
        whole = evaluate(make_order(study), resident, tmp_path / "whole")
        halved = evaluate(replace(make_order(study), memory_failures=1), resident, tmp_path / "halved")
        assert halved.values["loss"] == pytest.approx(whole.values["loss"], abs=1e-5)
        assert halved.correct == whole.correct
        assert halved.details["training"] == {"accumulation": 2}

    def test_what_runs_out_leaves_the_backbone_as_it_was(self, make_study, make_order, tmp_path, monkeypatch):
        study = make_study()
        resident = load_resident(study, CPU)
        watch_widths(resident.classifier, monkeypatch, [], 4)
        with pytest.raises(OutOfMemoryError):
            evaluate(make_order(study), resident, tmp_path)
        assert resident.classifier.configuration is None
