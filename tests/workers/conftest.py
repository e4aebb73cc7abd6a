"""A tiny study from end to end: random checkpoints with a tokenizer, a task in files, and orders of it."""

import json
import random
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    ElectraConfig,
    ElectraModel,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from autopeft.adapters.models import backbone_shapes, model_spec
from autopeft.budget import Budget
from autopeft.study import PARAMETERS, Direction, Fidelity, Objective, Order, Study
from autopeft.tasks import TaskSpec, load_task
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise
from workers.backbones import load_resident

GOOD, BAD = ("great", "lovely", "fine"), ("awful", "poor", "bad")
THINGS = ("pool", "room", "food", "view", "bed")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "was", "and", "not", *GOOD, *BAD, *THINGS]
SIZES = {"vocab_size": len(WORDS), "max_position_embeddings": 40, "initializer_range": 0.2}
WIDE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, **SIZES}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**WIDE)),
    "roberta": lambda: RobertaModel(RobertaConfig(**WIDE | {"type_vocab_size": 1, "pad_token_id": 0})),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **SIZES)),
    "electra": lambda: ElectraModel(ElectraConfig(**WIDE | {"embedding_size": 16})),
    "llama": lambda: LlamaModel(LlamaConfig(**WIDE, num_key_value_heads=1, pad_token_id=0)),
    "t5": lambda: T5Model(
        T5Config(d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=len(WORDS), **T5_TOKENS)
    ),
}
T5_TOKENS = {"eos_token_id": 3, "pad_token_id": 0, "decoder_start_token_id": 0}


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of a tiny random model with its tokenizer, made once."""
    made = {}

    def make(family="bert"):
        if family not in made:
            made[family] = tmp_path_factory.mktemp(family)
            torch.manual_seed(0)
            MODELS[family]().save_pretrained(made[family])
            tokenizer().save_pretrained(made[family])
        return made[family]

    return make


def tokenizer():
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = [("[CLS]", WORDS.index("[CLS]")), ("[SEP]", WORDS.index("[SEP]"))]
    words.post_processor = processors.TemplateProcessing("[CLS] $A [SEP]", "[CLS] $A [SEP] $B:1 [SEP]:1", marks)
    names = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return PreTrainedTokenizerFast(tokenizer_object=words, **names)


@pytest.fixture(scope="session")
def task_folder(tmp_path_factory):
    """Rows of one to three clauses about a thing; the label says whether the thing in ``text_pair`` was good."""
    folder = tmp_path_factory.mktemp("rooms")
    generator = random.Random(0)
    for split, count in (("train", 60), ("validation", 30), ("test", 20)):
        rows = [json.dumps(_row(generator)) for _ in range(count)]
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


def _row(generator):
    things = generator.sample(THINGS, generator.randint(1, 3))
    good = [generator.random() < 0.5 for _ in things]
    clauses = [f"the {t} was {generator.choice(GOOD if g else BAD)}" for t, g in zip(things, good, strict=True)]
    label = "good" if good[0] else "bad"
    return {"text": " and ".join(clauses), "text_pair": things[0], "label": label}


@pytest.fixture(scope="session")
def regression_folder(tmp_path_factory):
    """The share of good words, as a number."""
    folder = tmp_path_factory.mktemp("shares")
    generator = random.Random(1)
    for split, count in (("train", 40), ("validation", 20), ("test", 10)):
        rows = []
        for _ in range(count):
            words = generator.choices(GOOD + BAD, k=generator.randint(2, 6))
            rows.append(
                json.dumps({"text": " ".join(words), "label": sum(w in GOOD for w in words) / len(words) + 0.01})
            )
        (folder / f"{split}.jsonl").write_text("\n".join(rows) + "\n")
    return folder


@pytest.fixture
def make_study(checkpoint, task_folder):
    """A study of a tiny model (a family, or a folder) and a task in files; any field can be set by name."""

    def make(family="bert", pooling="mean", task=None, **fields):
        spec = model_spec(str(checkpoint(family) if isinstance(family, str) else family), pooling)
        backbone = backbone_shapes(spec.source)
        asked = TaskSpec(source=str(task or task_folder))
        loaded = load_task(asked)
        values = {
            "name": "rooms-1",
            "model": spec,
            "backbone": backbone,
            "task": asked.to_json(),
            "task_name": loaded.name,
            "metric": loaded.metric,
            "quality_floor": loaded.quality_floor,
            "space": layerwise(backbone, (1e-3, 1e-1)),
            "objectives": (Objective(loaded.metric, Direction.MAXIMISE), Objective(PARAMETERS, Direction.MINIMISE)),
            "budget": Budget(2000, "2000"),
            "fidelity": Fidelity(steps=12, batch_size=8, max_length=32),
            "control_learning_rate": 1e-2,
            "proposer": "random",
            "initial_count": 2,
            "trials": 4,
            "hours": None,
            "seed": 5,
        }
        return Study(**(values | fields))

    return make


@pytest.fixture
def make_order():
    """An order of a study; without a word, LoRA of rank 2 on query and value."""

    def make(study, configuration=None, number=0, attempt=1, replicate=0):
        if configuration is None:
            configuration = uniform(study.backbone, ("query", "value"), Lora(2, 4.0), 2e-2)
        return Order(100 + number, attempt, number, study, configuration, replicate, 0)

    return make


@pytest.fixture
def study(make_study):
    return make_study()


@pytest.fixture
def resident(study):
    return load_resident(study, torch.device("cpu"))


@pytest.fixture
def stub_command():
    """The command of a child that trains nothing and misbehaves as it is told: trial_1="die" and the like."""

    def command(steps=3, seconds=0.01, **faults):
        planted = {number.removeprefix("trial_"): fault for number, fault in faults.items()}
        stub = Path(__file__).parent / "stub_child.py"
        return [sys.executable, str(stub), str(steps), str(seconds), json.dumps(planted)]

    return command


@pytest.fixture
def stub_supervisors(stub_command):
    """Supervisors, of the kind that is asked for, of stub children; closed at the end."""
    started = []

    def make(kind, hang_seconds=60.0, **child):
        started.append(kind(stub_command(**child), hang_seconds, load_seconds=60.0))
        return started[-1]

    yield make
    for one in started:
        one.close()
