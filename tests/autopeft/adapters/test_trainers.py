"""Trainers of the ecosystem train what ``autopeft.apply`` inserted: accelerate, HF Trainer, TRL's SFTTrainer."""

from importlib.util import find_spec

import pytest
import torch
import transformers

from autopeft.adapters import adapter_parameters, apply, remove
from autopeft.adapters.anatomy import describe
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.dora import Dora
from search_spaces.methods.ia3 import Ia3
from search_spaces.methods.lora import Lora
from search_spaces.methods.norm import Norm
from search_spaces.methods.parallel import Parallel
from search_spaces.methods.prefix import Prefix
from search_spaces.methods.serial import Serial

pytestmark = pytest.mark.slow
ROWS = (
    LayerPlan((Placement("query", Lora(2, 4.0)), Placement("value", Ia3()), Placement("attention", Prefix(2)))),
    LayerPlan(
        (
            Placement("up", Dora(2, 4.0)),
            Placement("norms", Norm()),
            Placement("feed_forward", Serial(3)),
            Placement("feed_forward", Parallel(3)),
        )
    ),
)
PLAN = Configuration(ROWS, Training(1e-2))
WORDS = ["[PAD]", "[UNK]", "[END]", *"abcdefgh"]


def llama():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = transformers.LlamaConfig(**sizes, vocab_size=len(WORDS), pad_token_id=0, eos_token_id=2, use_cache=False)
    return transformers.LlamaForCausalLM(config)


class Watched:
    """A language model with the plan in it; what was trained, and whether all else stayed."""

    def __init__(self):
        self.model = llama()
        self.pretrained = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        apply(self.model, PLAN, seed=0)
        self.model.lm_head.requires_grad_(False)
        self.start = {name: p.detach().clone() for name, p in adapter_parameters(self.model).items()}

    def require_trained(self):
        now = adapter_parameters(self.model)
        assert {name for name, p in now.items() if not torch.equal(p, self.start[name])} == set(self.start)
        assert isinstance(self.model, transformers.PreTrainedModel)
        remove(self.model)
        for name, tensor in self.model.state_dict().items():
            assert torch.equal(tensor, self.pretrained[name]), name
        assert describe(self.model, "llama").parameter_count


def ids(rows=8, tokens=6):
    return torch.randint(3, len(WORDS), (rows, tokens), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mixed_precision", ["no", "bf16"])
def test_accelerate_trains_a_plan(mixed_precision):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    watched = Watched()
    accelerator = Accelerator(cpu=True, mixed_precision=mixed_precision, gradient_accumulation_steps=2)
    optimizer = torch.optim.AdamW(adapter_parameters(watched.model).values(), lr=1e-2)
    rows = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(ids()), batch_size=2)
    model, optimizer, rows = accelerator.prepare(watched.model, optimizer, rows)
    for (batch,) in rows:
        with accelerator.accumulate(model):
            accelerator.backward(model(input_ids=batch, labels=batch).loss)
            optimizer.step()
            optimizer.zero_grad()
    watched.model = accelerator.unwrap_model(model, keep_fp32_wrapper=False)
    watched.require_trained()
    AcceleratorState._reset_state(reset_partial_state=True)


def test_the_trainer_of_transformers_trains_a_plan_with_checkpointed_layers(tmp_path):
    watched = Watched()
    watched.model.activation_checkpointing_enable({"use_reentrant": False})
    arguments = transformers.TrainingArguments(
        str(tmp_path), max_steps=4, learning_rate=1e-2, use_cpu=True, report_to=[], save_strategy="no"
    )
    rows = [{"input_ids": row, "labels": row} for row in ids()]
    transformers.Trainer(model=watched.model, args=arguments, train_dataset=rows).train()
    watched.require_trained()


@pytest.mark.skipif(find_spec("trl") is None, reason="trl is not installed: pip install 'autopeft[trl]'")
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_trl_trains_a_plan(tmp_path):
    from datasets import Dataset
    from tokenizers import Tokenizer, models, pre_tokenizers
    from trl import SFTConfig, SFTTrainer

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    marks = {"pad_token": "[PAD]", "eos_token": "[END]", "unk_token": "[UNK]"}
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=words, **marks)
    watched = Watched()
    rows = Dataset.from_list([{"prompt": f"{x} {x}", "completion": f" {x} a"} for x in "abcdefgh"])
    arguments = SFTConfig(
        str(tmp_path), max_steps=6, learning_rate=1e-2, use_cpu=True, bf16=False, report_to=[], save_strategy="no"
    )
    trainer = SFTTrainer(model=watched.model, args=arguments, train_dataset=rows, processing_class=tokenizer)
    trainer.train()
    assert trainer.model is watched.model
    watched.require_trained()
