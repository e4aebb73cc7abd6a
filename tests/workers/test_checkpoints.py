"""A trial that is left at a rung or between two steps and gone on with, here or in another process."""

import json
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

from autopeft.errors import ConfigurationError, EvaluationError, NotFoundError
from autopeft.study import IMPORTANCE, Checkpoint, Fidelity
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.lora import MOVE_THE_WEIGHT, Lora
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.schedule import UpdateSchedule
from workers.backbones import load_resident
from workers.checkpoints import TRAINING_FILE, checkpoint_sha256, read_checkpoint
from workers.evaluate import evaluate
from workers.pipe import measurement_from_json, order_from_json, order_to_json
from workers.stopping import Preempted

CPU = torch.device("cpu")
LADDER = Fidelity(12, 8, 32, (3, 7))


@pytest.fixture
def laddered(make_study):
    return make_study(fidelity=LADDER)


def mixed(rate=2e-2):
    """A method of every kind: peft's, prefix, bottleneck, bias."""
    rows = [
        LayerPlan((Placement("query", Dora(2, 4.0)), Placement("attention", Prefix(2)), Placement("down", Bias()))),
        LayerPlan((Placement("value", Lora(3, 6.0)), Placement("feed_forward", Serial(4)))),
    ]
    return Configuration(tuple(rows), Training(rate))


def untimed(measurement):
    """What does not depend on the machine: peak memory is read at the widest batch of each attempt."""
    measured_here = ("_seconds", "peak_memory")
    values = {name: value for name, value in measurement.values.items() if not name.endswith(measured_here)}
    return values, measurement.curve, measurement.correct


def files(folder):
    return {file.name: file.read_bytes() for file in sorted(folder.iterdir())}


def climb(order, resident, folder):
    """The measurements at every rung, each attempt going on from what the ones before left."""
    found, kept = [], ()
    for rung in range(order.rung, order.study.fidelity.top + 1):
        attempt = replace(order, rung=rung, attempt=rung + 1, checkpoints=kept)
        measurement = evaluate(attempt, resident, folder)
        kept = (Checkpoint(rung, measurement.artifact, measurement.sha256), *kept)
        found.append(measurement)
    return found


@pytest.mark.parametrize("init", ["default", *MOVE_THE_WEIGHT, "eva"])
def test_a_trial_that_pauses_at_rungs_ends_bitwise_as_one_that_does_not(laddered, make_order, tmp_path, init):
    resident = load_resident(laddered, CPU)
    plan = uniform(laddered.backbone, ("query", "value"), Lora(2, 4.0, init=init), 2e-2)
    order = make_order(laddered, plan)
    straight = evaluate(replace(order, rung=2), resident, tmp_path / "straight")
    *lower, last = climb(order, resident, tmp_path / "rungs")
    assert untimed(last) == untimed(straight)
    assert files(tmp_path / "rungs" / last.artifact) == files(tmp_path / "straight" / straight.artifact)
    assert [measurement.rung for measurement in lower] == [0, 1]
    assert [measurement.curve[-1][0] for measurement in lower] == [3, 7]
    assert last.details["training"] == {"from_step": 7}
    assert lower[0].values["train_seconds"] < lower[1].values["train_seconds"] < last.values["train_seconds"]


def test_what_a_schedule_has_learned_goes_with_the_trial(laddered, make_order, tmp_path):
    resident = load_resident(laddered, CPU)
    plan = uniform(laddered.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
    training = replace(plan.training, schedule=UpdateSchedule(update_fraction=0.5, interval=2, candidates=2))
    order = make_order(laddered, replace(plan, training=training))
    straight = evaluate(replace(order, rung=2), resident, tmp_path / "straight")
    last = climb(order, resident, tmp_path / "rungs")[-1]
    assert untimed(last) == untimed(straight)
    assert last.details[IMPORTANCE]["probes"] > 3
    learned, kept = last.details[IMPORTANCE], straight.details[IMPORTANCE]
    assert {**learned, "saved_bytes": 0} == {**kept, "saved_bytes": 0}


def test_another_process_goes_on_bitwise_where_this_one_paused(laddered, make_order, tmp_path):
    resident = load_resident(laddered, CPU)
    order = make_order(laddered, mixed())
    straight = evaluate(replace(order, rung=2), resident, tmp_path / "straight")
    first = evaluate(order, resident, tmp_path / "rungs")
    kept = (Checkpoint(0, first.artifact, first.sha256),)
    last = elsewhere(replace(order, rung=2, attempt=2, checkpoints=kept), tmp_path / "rungs")
    assert last.details["training"] == {"from_step": 3}
    assert untimed(last) == untimed(straight)
    assert files(tmp_path / "rungs" / last.artifact) == files(tmp_path / "straight" / straight.artifact)


def elsewhere(order, folder):
    """As ``evaluate``, in a process of its own."""
    answer = subprocess.run(
        [sys.executable, __file__, str(folder)],
        input=json.dumps(order_to_json(order)),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return measurement_from_json(json.loads(answer.stdout.splitlines()[-1]))


def main(folder):
    from pathlib import Path

    from workers.pipe import measurement_to_json

    torch.set_num_threads(1)
    order = order_from_json(json.loads(sys.stdin.read()))
    print(json.dumps(measurement_to_json(evaluate(order, load_resident(order.study, CPU), Path(folder)))))


class TestPreemption:
    @pytest.fixture
    def interrupt(self):
        def at(step, keep=True):
            def between_steps(done):
                if done == step:
                    raise Preempted("the worker was asked to stop", keep=keep)

            return between_steps

        return at

    @pytest.mark.parametrize("step", [1, 5, 0])
    def test_in_the_middle_of_a_rung_nothing_is_lost(self, laddered, make_order, tmp_path, interrupt, step):
        """Step 0 stands for scoring, which begins when the steps are made."""
        resident = load_resident(laddered, CPU)
        order = replace(make_order(laddered), rung=1)
        straight = evaluate(order, resident, tmp_path / "straight")
        with pytest.raises(Preempted) as stopped:
            evaluate(order, resident, tmp_path, interrupt(step))
        kept = stopped.value.checkpoint
        assert kept.rung == 1
        again = evaluate(replace(order, attempt=2, checkpoints=(kept,)), resident, tmp_path)
        assert untimed(again) == untimed(straight)
        assert again.details["training"] == {"from_step": step or 7}

    def test_nothing_is_written_for_a_trial_that_nobody_goes_on_with(self, laddered, make_order, tmp_path, interrupt):
        resident = load_resident(laddered, CPU)
        with pytest.raises(Preempted) as stopped:
            evaluate(make_order(laddered), resident, tmp_path, interrupt(2, keep=False))
        assert stopped.value.checkpoint is None
        assert not any(tmp_path.rglob("*.pt"))

    def test_no_room_for_the_checkpoint_costs_only_the_checkpoint(
        self, laddered, make_order, tmp_path, interrupt, monkeypatch
    ):
        def full(*_):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr("workers.evaluate.write_checkpoint", full)
        with pytest.raises(Preempted) as stopped:
            evaluate(make_order(laddered), load_resident(laddered, CPU), tmp_path, interrupt(2))
        assert stopped.value.checkpoint is None


class TestDamage:
    """Fault 20: what cannot be read costs the steps since the rung before, and no wrong value."""

    @pytest.fixture
    def paused(self, laddered, make_order, tmp_path):
        """An order for the top rung with checkpoints of both rungs below, and its right result."""
        resident = load_resident(laddered, CPU)
        order = make_order(laddered)
        straight = evaluate(replace(order, rung=2), resident, tmp_path / "straight")
        lower = climb(order, resident, tmp_path)[:2]
        kept = tuple(Checkpoint(one.rung, one.artifact, one.sha256) for one in reversed(lower))
        return replace(order, rung=2, attempt=9, checkpoints=kept), resident, straight

    @pytest.mark.parametrize("name", ["adapter.safetensors", "head.safetensors", "configuration.json", TRAINING_FILE])
    def test_20_a_flipped_bit_falls_back_a_rung(self, paused, tmp_path, name, caplog):
        order, resident, straight = paused
        file = tmp_path / order.checkpoints[0].path / name
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(content)
        measurement = evaluate(order, resident, tmp_path)
        assert measurement.details["training"] == {"from_step": 3}
        assert untimed(measurement) == untimed(straight)
        assert "SHA-256" in caplog.text

    def test_20_missing_checkpoints_begin_the_trial_anew(self, paused, tmp_path):
        order, resident, straight = paused
        for checkpoint in order.checkpoints:
            (tmp_path / checkpoint.path / TRAINING_FILE).unlink()
        measurement = evaluate(order, resident, tmp_path)
        assert "training" not in measurement.details
        assert untimed(measurement) == untimed(straight)

    def test_nothing_is_unpickled_from_a_file_whose_hash_differs(self, paused, tmp_path, monkeypatch):
        order, resident, _ = paused
        folder = tmp_path / order.checkpoints[0].path
        monkeypatch.setattr("torch.load", lambda *_a, **_k: pytest.fail("it was read"))
        with pytest.raises(EvaluationError, match="SHA-256"):
            read_checkpoint(resident.classifier, order.configuration, folder, "0" * 64, CPU)
        with pytest.raises(NotFoundError):
            read_checkpoint(resident.classifier, order.configuration, tmp_path / "none", "0" * 64, CPU)
        assert resident.classifier.configuration is None

    def test_a_checkpoint_of_another_configuration_is_refused(self, paused, tmp_path):
        order, resident, _ = paused
        folder = tmp_path / order.checkpoints[0].path
        other = uniform(order.study.backbone, ("key",), Lora(1, 2.0), 1e-2)
        with pytest.raises(ConfigurationError, match="another configuration"):
            read_checkpoint(resident.classifier, other, folder, checkpoint_sha256(folder), CPU)
        assert resident.classifier.configuration is None


if __name__ == "__main__":
    main(sys.argv[1])
