"""Tiny random checkpoints of every family that is known."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

SIZES = {"vocab_size": 50, "max_position_embeddings": 40}
WIDE = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32, **SIZES}
MODELS = {
    "bert": lambda: BertModel(BertConfig(**WIDE)),
    "roberta": lambda: RobertaModel(RobertaConfig(**WIDE | {"pad_token_id": 1, "type_vocab_size": 1})),
    "distilbert": lambda: DistilBertModel(DistilBertConfig(dim=16, n_layers=3, n_heads=2, hidden_dim=32, **SIZES)),
    "bert without pooler": lambda: BertForMaskedLM(BertConfig(**WIDE)),
    "deep bert": lambda: BertModel(BertConfig(**WIDE | {"num_hidden_layers": 12})),
}
FAMILIES = ("bert", "roberta", "distilbert")


def make_tiny(name):
    torch.manual_seed(0)
    return MODELS[name]().eval()


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def tiny(family):
    """A headless model of each family."""
    return make_tiny(family)


@pytest.fixture
def make_model():
    """Makes the headless model of that name."""
    return make_tiny


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """Folder of the checkpoint of that name, made once."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name.replace(" ", "-"))
            make_tiny(name).save_pretrained(made[name])
        return made[name]

    return make


@pytest.fixture
def inputs():
    """Three rows of token ids, the last one half padding."""
    ids = torch.randint(5, 50, (3, 10), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    ids[2, 5:], mask[2, 5:] = 1, 0
    return {"input_ids": ids, "attention_mask": mask}
