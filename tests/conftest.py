"""Shared by all tests: no hub, one thread, where the test data lies."""

import os
import tempfile
import uuid
from pathlib import Path

import pytest
from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": uuid.uuid4().hex}  # Ray reads them once in a process
os.environ |= {"RAY_worker_niceness": "0"}  # 15 otherwise: on two busy cores a worker then takes minutes to start
for name in [name for name in os.environ if name.startswith("AUTOPEFT_") and name != "AUTOPEFT_TEST_DATA"]:
    del os.environ[name]
_cache = tempfile.TemporaryDirectory(prefix="autopeft-tests-")
os.environ["AUTOPEFT_CACHE_DIR"] = _cache.name  # not the user's
# the same examples on every machine, slow or not
settings.register_profile("repeatable", deadline=None, derandomize=True)
settings.load_profile("repeatable")

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="session")
def data_folder():
    """The real data sets; tests that need them skip without."""
    folder = Path(os.environ.get("AUTOPEFT_TEST_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; set AUTOPEFT_TEST_DATA")
    return folder


@pytest.fixture
def tiny_backbone():
    """Shapes of a BERT of two layers, 8 wide: 3,072 parameters stand for the whole."""
    from search_spaces.backbone import Backbone, ModuleShape, NormShape

    def layer(index):
        at = f"encoder.layer.{index}"
        names = {
            "query": "attention.self.query",
            "key": "attention.self.key",
            "value": "attention.self.value",
            "output": "attention.output.dense",
        }
        square = [ModuleShape(role, f"{at}.{name}", 8, 8) for role, name in names.items()]
        up = ModuleShape("up", f"{at}.intermediate.dense", 8, 16)
        return (*square, up, ModuleShape("down", f"{at}.output.dense", 16, 8))

    norms = tuple(
        tuple(NormShape(f"encoder.layer.{i}.{name}.LayerNorm", 8) for name in ("attention.output", "output"))
        for i in range(2)
    )
    return Backbone("tiny", "bert", 8, 3072, (layer(0), layer(1)), norms, 2, 2, 4, 16)


@pytest.fixture
def make_study(tiny_backbone):
    """A study of the tiny backbone; any field can be set by name."""
    from autopeft.budget import Budget
    from autopeft.study import PARAMETERS, Direction, Fidelity, ModelSpec, Objective, Study
    from search_spaces.presets import layerwise

    def make(**fields):
        values = {
            "name": "tiny-1",
            "model": ModelSpec("tiny", "mean", "0" * 64),
            "backbone": tiny_backbone,
            "task": {"source": "aspects"},
            "task_name": "aspects",
            "metric": "accuracy",
            "quality_floor": 0.5,
            "space": layerwise(tiny_backbone, (1e-4, 1e-2)),
            "objectives": (Objective("accuracy", Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
            "budget": Budget(512, "512"),
            "fidelity": Fidelity(steps=2, batch_size=4, max_length=16),
            "control_learning_rate": 1e-3,
            "proposer": "random",
            "initial_count": 2,
            "trials": 4,
            "hours": None,
            "seed": 0,
        }
        return Study(**(values | fields))

    return make


@pytest.fixture
def make_trial(tiny_backbone):
    """A trial of uniform rank 1 on query and value, no repeat of another; any field can be set by name."""
    from autopeft.study import PARAMETERS, Origin, Trial, TrialState
    from search_spaces.configuration import uniform
    from search_spaces.methods.lora import Lora

    def make(number=0, accuracy=None, parameters=64, **fields):
        configuration = uniform(tiny_backbone, ("query", "value"), Lora(1, 2.0), 1e-3)
        measured = {PARAMETERS: parameters, "loss": 0.5, "train_seconds": 1.0, "evaluate_seconds": 0.5}
        values = {
            "number": number,
            "configuration": configuration,
            "digest": f"{configuration.digest[:-4]}{number:04x}",
            "state": TrialState.QUEUED if accuracy is None else TrialState.COMPLETE,
            "origin": Origin.MODEL,
            "label": None,
            "replicate": 0,
            "rung": 0 if accuracy is None else 1,
            "attempt": 0 if accuracy is None else 1,
            "owner": None,
            "values": {} if accuracy is None else {"accuracy": accuracy, **measured},
            "error": None,
        }
        return Trial(**(values | fields))

    return make
