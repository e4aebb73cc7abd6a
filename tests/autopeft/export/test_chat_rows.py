"""Conversations for other trainers: a row for each turn that is learned, and the template for whoever serves."""

import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from autopeft.adapters.models import model_spec
from autopeft.export.rows import TEMPLATE_FILE, write_rows, write_template
from autopeft.tasks.templates import CHAT_TEMPLATES
from workers.answers import IGNORED, encode_answers


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A tiny Llama with a tokenizer of letters that begins every text with its begin token."""
    folder = tmp_path_factory.mktemp("llama")
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    words.add_special_tokens(["<begin>", "<end>", "<pad>"])
    words.post_processor = processors.TemplateProcessing(single="<begin> $A", special_tokens=[("<begin>", 256)])
    names = {"bos_token": "<begin>", "eos_token": "<end>", "pad_token": "<pad>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **names).save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    LlamaForCausalLM(LlamaConfig(vocab_size=300, max_position_embeddings=64, **sizes)).save_pretrained(folder)
    return model_spec(str(folder), "stock")


@pytest.fixture
def trained(llama, tmp_path):
    """A trial on conversations of two turns, as far as rows are concerned."""
    said = [("user", "hi"), ("assistant", "ho"), ("user", "so"), ("assistant", "no")]
    chat = {"messages": [{"role": role, "content": content} for role, content in said]}
    (tmp_path / "chats.jsonl").write_text((json.dumps(chat) + "\n") * 20)
    task = {"source": str(tmp_path / "chats.jsonl"), "chat_template": "plain"}
    return SimpleNamespace(study=SimpleNamespace(task=task, model=llama))


def read(file):
    return [json.loads(line) for line in file.read_text().splitlines()]


def test_each_turn_is_a_row_of_the_text_before_it(trained, tmp_path):
    assert write_rows(trained, tmp_path)
    rows = read(tmp_path / "train.jsonl")
    assert len(rows) == 2 * 18
    assert rows[0] == {"prompt": "user: hi\nassistant: ", "completion": "ho"}
    assert rows[1] == {"prompt": "user: hi\nassistant: ho<end>\nuser: so\nassistant: ", "completion": "no"}


def test_a_trainer_of_prompts_learns_the_tokens_that_the_search_learned(trained, tmp_path):
    from autopeft.adapters.models import load_template
    from autopeft.tasks import TaskSpec, load_task

    write_rows(trained, tmp_path)
    task = load_task(TaskSpec.from_json(trained.study.task))
    template = load_template(trained.study.model, task.chat_template)
    rows = encode_answers(template.tokenizer, task.train, 64, template=template)
    _, labels = rows.batch([0], torch.device("cpu"))
    learned = [token for token in labels[0].tolist() if token != IGNORED]
    elsewhere = [
        token
        for row in read(tmp_path / "train.jsonl")[:2]
        for token in [*template.tokenizer(row["completion"], add_special_tokens=False)["input_ids"], 257]
    ]
    assert elsewhere == learned
    first = read(tmp_path / "train.jsonl")[1]["prompt"]
    assert template.tokenizer(first)["input_ids"] == rows.ids[0][: rows.starts[0]]


def test_a_template_that_was_given_goes_along(trained, tmp_path):
    write_template(trained.study, tmp_path)
    assert (tmp_path / TEMPLATE_FILE).read_text() == CHAT_TEMPLATES["plain"]
    (tmp_path / TEMPLATE_FILE).unlink()
    write_template(SimpleNamespace(task={"source": "x"}), tmp_path)
    assert not (tmp_path / TEMPLATE_FILE).exists()
