"""Tiny random checkpoints of every family that is known."""

import pytest
import torch
import transformers as hf
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    DistilBertConfig,
    DistilBertModel,
    RobertaConfig,
    RobertaModel,
)

from autopeft.adapters.anatomy import describe
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.errors import ConfigurationError
from search_spaces.methods import LayerMethod
from search_spaces.methods.bias import Bias
from search_spaces.methods.dora import Dora
from search_spaces.methods.hira import Hira
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.loha import Loha
from search_spaces.methods.lokr import Lokr
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.norm import Norm
from search_spaces.methods.oft import Oft
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera

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

TOKENS = {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
TWO = WIDE | {"num_hidden_layers": 2}
GROUPED = TWO | TOKENS | {"num_key_value_heads": 1}
ZOO = {
    "bert": lambda: hf.BertModel(hf.BertConfig(**TWO)),
    "roberta": lambda: hf.RobertaModel(hf.RobertaConfig(**TWO | {"pad_token_id": 1, "type_vocab_size": 1})),
    "distilbert": lambda: hf.DistilBertModel(
        hf.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, **SIZES)
    ),
    "deberta-v2": lambda: hf.DebertaV2Model(
        hf.DebertaV2Config(
            **TWO, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8, share_att_key=True
        )
    ),
    "electra": lambda: hf.ElectraModel(hf.ElectraConfig(**TWO, embedding_size=8)),
    "modernbert": lambda: hf.ModernBertModel(
        hf.ModernBertConfig(
            **TWO, **TOKENS, cls_token_id=0, sep_token_id=2, global_attn_every_n_layers=2, local_attention=4
        )
    ),
    "llama": lambda: hf.LlamaModel(hf.LlamaConfig(**GROUPED)),
    "mistral": lambda: hf.MistralModel(hf.MistralConfig(**GROUPED, sliding_window=4)),
    "qwen2": lambda: hf.Qwen2Model(hf.Qwen2Config(**GROUPED)),
    "qwen3": lambda: hf.Qwen3Model(hf.Qwen3Config(**GROUPED, head_dim=8)),
    "gemma": lambda: hf.GemmaModel(hf.GemmaConfig(**GROUPED, head_dim=8)),
    "phi3": lambda: hf.Phi3Model(hf.Phi3Config(**GROUPED)),
    "gpt2": lambda: hf.GPT2Model(
        hf.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=50, n_positions=40, bos_token_id=0, eos_token_id=2)
    ),
    "opt": lambda: hf.OPTModel(
        hf.OPTConfig(
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            ffn_dim=32,
            word_embed_proj_dim=16,
            **SIZES,
            **TOKENS,
        )
    ),
    "t5": lambda: hf.T5Model(
        hf.T5Config(
            d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, vocab_size=50, feed_forward_proj="gated-gelu"
        )
    ),
    "vit": lambda: hf.ViTModel(
        hf.ViTConfig(
            hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=8, patch_size=4
        )
    ),
}
"""A tiny random model of every family that is known, two layers each."""

EXAMPLES = {
    "lora": Lora(2, 4.0),
    "dora": Dora(2, 4.0),
    "ia3": Ia3(),
    "hira": Hira(2),
    "loha": Loha(2, 4.0),
    "lokr": Lokr(1, 2.0, 4),
    "vera": Vera(3),
    "oft": Oft(4),
    "mola": Mola(3, 2, 4.0),
    "bias": Bias(),
    "norm": Norm(),
    "serial": Serial(3),
    "parallel": Parallel(5),
    "prefix": Prefix(3),
}
INITIALISATIONS = {
    "rank-stabilised": Lora(4, 4.0, "rank-stabilised"),
    **{
        name: Lora(2, 4.0, init=name)
        for name in ("pissa", "olora", "orthogonal", "eva", "corda", "corda_ipm", "lora_ga")
    },
}


def make_zoo_model(name):
    torch.manual_seed(0)
    return ZOO[name]().eval().requires_grad_(False)


def zoo_inputs(name):
    generator = torch.Generator().manual_seed(1)
    if name == "vit":
        return {"pixel_values": torch.randn(3, 3, 8, 8, generator=generator)}
    ids = torch.randint(5, 50, (3, 10), generator=generator)
    mask = torch.ones_like(ids)
    ids[2, 6:], mask[2, 6:] = 1, 0
    batch = {"input_ids": ids, "attention_mask": mask}
    return batch | {"decoder_input_ids": ids[:, :6]} if name == "t5" else batch


def fitting_sites(backbone, layer, method):
    """Sites of a layer that can take the method, and why the others cannot."""
    sites, reasons = [], []
    if method.name in dict(backbone.refusals):
        return [], [dict(backbone.refusals)[method.name]]
    for site in backbone.sites(layer):
        if site in method.sites:
            try:
                if not isinstance(method, LayerMethod):
                    method.require_fit(backbone.module(layer, site))
                sites.append(site)
            except ConfigurationError as error:
                reasons.append(str(error))
    return sites, reasons


@pytest.fixture
def make_zoo():
    """Makes a tiny random model of a family, frozen."""
    return make_zoo_model


@pytest.fixture
def inputs_of():
    """Three rows for a model of a family, the last one padded where it reads tokens."""
    return zoo_inputs


@pytest.fixture
def everywhere():
    """Makes the configuration with a method wherever it fits; empty where it fits nowhere."""

    def make(method, backbone):
        rows = [
            LayerPlan(tuple(Placement(site, method) for site in fitting_sites(backbone, layer, method)[0]))
            for layer in range(backbone.layer_count)
        ]
        return Configuration(tuple(rows), Training(1e-3))

    return make


@pytest.fixture
def refusal():
    """Why a method fits nowhere in a backbone; None where it fits somewhere."""

    def find(method, backbone):
        found = [fitting_sites(backbone, layer, method) for layer in range(backbone.layer_count)]
        return None if any(sites for sites, _ in found) else found[0][1][0]

    return find


def pytest_generate_tests(metafunc):
    """Every family, every method, for tests that ask for them."""
    if "zoo_family" in metafunc.fixturenames:
        metafunc.parametrize("zoo_family", ZOO)
    if "method" in metafunc.fixturenames:
        metafunc.parametrize("method", EXAMPLES.values(), ids=EXAMPLES)
    if "initialisation" in metafunc.fixturenames:
        metafunc.parametrize("initialisation", INITIALISATIONS.values(), ids=INITIALISATIONS)


@pytest.fixture
def described():
    """The shapes of a tiny model of a family."""
    return lambda name: describe(make_zoo_model(name), name)


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


@pytest.fixture
def examples():
    """A method of each kind by its name."""
    return EXAMPLES
