"""Two processes that share every step: the run of one, up to the order of sums."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autopeft.errors import ConfigurationError
from autopeft.export.provenance import provenance
from autopeft.final import FinalPlan, FinalSettings, Training
from autopeft.study import Origin, Trial, TrialState
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers.final import train_in_full
from workers.processes import require_rows


def test_there_are_at_most_as_many_processes_as_rows_in_a_step():
    require_rows(4, 4)
    with pytest.raises(ConfigurationError, match="5 processes for steps of 4 rows"):
        require_rows(4, 5)


@pytest.mark.slow
def test_two_processes_make_the_run_of_one(study, tmp_path):
    plan = uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
    trial = Trial(0, plan, plan.digest, TrialState.COMPLETE, Origin.MODEL, None, 0, 1, 1, None, {}, None)
    origin = provenance(study, trial, None, "train", None)

    def asked(name, processes):
        training = Training(plan, origin, tmp_path / name)
        return FinalPlan(study, FinalSettings((3,), checkpoint_steps=5), (training,), processes=processes)

    train_in_full(asked("one", 1))
    (tmp_path / "plan.json").write_text(json.dumps(asked("two", 2).to_json()))
    launch = [sys.executable, "-P", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    root = str(Path(__file__).parent.parent.parent)
    environment = os.environ | {"PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "", "PYTHONSAFEPATH": "1"}
    command = [*launch, "workers", "train", "--plan", str(tmp_path / "plan.json")]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    one, two = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("one", "two"))
    assert (one["processes"], two["processes"]) == (1, 2)
    for (step, loss), (other, same) in zip(one["seeds"][0]["curve"], two["seeds"][0]["curve"], strict=True):
        assert (step, loss) == (other, pytest.approx(same, abs=1e-5))
    assert one["seeds"][0]["values"]["loss"] == pytest.approx(two["seeds"][0]["values"]["loss"], abs=1e-4)
