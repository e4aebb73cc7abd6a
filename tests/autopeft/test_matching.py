"""What is refused before a study is recorded because rows and model do not go together."""

import json

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from autopeft.adapters.models import backbone_shapes, model_spec
from autopeft.errors import BackboneError, ConfigurationError, TaskError
from autopeft.fidelity import Fidelity
from autopeft.matching import matched
from autopeft.tasks import TaskSpec, load_task


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny Llama whose tokenizer, of letters, has no chat template."""
    folder = tmp_path_factory.mktemp("llama")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<end>", pad_token="<pad>").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def match(llama, tmp_path):
    """Matches rows with that model."""

    def made(rows, fidelity=None, **spec):
        (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        task = load_task(TaskSpec(str(tmp_path / "train.jsonl"), **spec))
        return task, matched(task, model_spec(llama, "stock"), backbone_shapes(llama), fidelity or Fidelity(2, 2, 32))

    return made


def chats(count=20, asked="hi"):
    said = {"role": "assistant", "content": "ho"}
    return [{"messages": [{"role": "user", "content": f"{asked} {n}"}, said]} for n in range(count)]


def test_conversations_need_a_template_and_its_text_is_hashed(match):
    with pytest.raises(BackboneError, match=r"no chat template.*give --chat-template NAME or FILE"):
        match(chats())
    task, plain = match(chats(), chat_template="plain")
    assert plain.data_sha256 != task.data_sha256
    assert plain.data_sha256 != match(chats(), chat_template="headings")[1].data_sha256
    prompts = [{"prompt": f"{n}?", "completion": "yes indeed"} for n in range(20)]
    assert match(prompts)[0] == match(prompts)[1]


def test_a_template_that_refuses_a_row_is_said_with_the_rows_number(match):
    fussy = (
        "{%- for m in messages %}{{- raise_exception('no sixes') if '6' in m.content }}{{- m.content }}{%- endfor %}"
    )
    with pytest.raises(TaskError, match=r"row 7 .*no sixes; correct the row"):
        match(chats(10), chat_template=fussy)


def test_what_is_generated_has_to_fit_beside_a_prompt(match):
    with pytest.raises(ConfigurationError, match="max new tokens 32: expected less than max length, 32"):
        match(chats(), chat_template="plain", max_new_tokens=32)
    assert match(chats(), chat_template="plain", max_new_tokens=31)[1].spec.max_new_tokens == 31


def test_rows_that_are_classified_are_not_packed(match):
    packing = Fidelity(2, 2, 32, packing=True)
    classes = [{"text": f"{n}", "label": ("no", "yes")[n % 2]} for n in range(20)]
    with pytest.raises(ConfigurationError, match="packing: train is classification, whose rows need a sequence each"):
        match(classes, packing)
    assert match(chats(), packing, chat_template="plain")[1].train.chats
