"""lm-evaluation-harness on a tiny model: what is said without it, and its figures where it is installed."""

import importlib.util
import json
from types import SimpleNamespace

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from autopeft.adapters.models import load_language_model, model_spec
from autopeft.errors import ConfigurationError, EvaluationError, TaskError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training
from search_spaces.methods.prefix import Prefix
from workers.harness import harness_scores, require_harness

TASK = """
task: letters
dataset_path: json
dataset_kwargs: {{data_files: {{test: {rows}}}}}
output_type: multiple_choice
test_split: test
doc_to_text: "{{{{question}}}}"
doc_to_choice: "{{{{options}}}}"
doc_to_target: "{{{{answer}}}}"
metric_list: [{{metric: acc}}]
"""
OPTIONS = ["aa", "bb"]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"lm-eval arc_easy: .*pip install 'autopeft\[lm-eval\]'"):
        require_harness(["arc_easy"], "likelihood")


def test_a_model_that_says_nothing_is_refused():
    with pytest.raises(TaskError, match="lm-eval needs a language model, and accuracy ranks another kind of task"):
        require_harness(["arc_easy"], "accuracy")


def tiny(folder):
    """A tiny Llama with a tokenizer of letters, saved, and loaded as a study's."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = Tokenizer(models.BPE(vocab={letter: index for index, letter in enumerate(letters)}, merges=[]))
    words.pre_tokenizer, words.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<b>", eos_token="<e>", pad_token="<p>")
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    config = LlamaConfig(vocab_size=259, max_position_embeddings=64, initializer_range=0.5, **sizes)
    LlamaForCausalLM(config).save_pretrained(folder)
    study = SimpleNamespace(model=model_spec(str(folder), "stock"))
    return study, load_language_model(study.model), tokenizer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_its_accuracy_is_what_the_adapted_model_finds_likeliest(tmp_path):
    pytest.importorskip("lm_eval")
    rows = [{"question": f"{n}?", "options": OPTIONS, "answer": n % 2} for n in range(10)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    file = tmp_path / "letters.yaml"
    file.write_text(TASK.format(rows=tmp_path / "rows.jsonl"))
    with pytest.raises(TaskError, match="lm-eval has no task no_such_task"):
        require_harness([str(file), "no_such_task"], "likelihood")
    require_harness([str(file), "arc_easy"], "likelihood")

    study, classifier, tokenizer = tiny(tmp_path / "llama")
    prompts = SimpleNamespace(train=SimpleNamespace(chats=None), chat_template=None)
    plan = tuple(LayerPlan((Placement("attention", Prefix(length)),)) for length in (2, 5))
    classifier.adapt(Configuration(plan, Training(1e-2)), seed=1)
    with torch.no_grad():
        for parameter in classifier.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape))
    found = harness_scores(study, prompts, classifier, [str(file)])
    right = [chosen(classifier, tokenizer, row) == row["answer"] for row in rows]
    assert 0 < sum(right) < 10
    assert found["tasks"]["letters"]["acc"] == pytest.approx(sum(right) / 10)
    assert json.loads(json.dumps(found, allow_nan=False))["tasks"]["letters"]["acc_stderr"] > 0
    with pytest.raises(EvaluationError, match=r"lm-eval .*letters\.yaml: "):
        (tmp_path / "rows.jsonl").unlink()
        harness_scores(study, prompts, classifier, [str(file)])


@torch.no_grad()
def chosen(classifier, tokenizer, row):
    """The option whose tokens are likeliest after the question, as a plain forward pass says."""
    sums = []
    for option in row["options"]:
        ids = tokenizer(f"{row['question']} {option}")["input_ids"]
        chances = classifier.model(torch.tensor([ids])).logits[0].log_softmax(-1)
        sums.append(sum(chances[place - 1, ids[place]].item() for place in range(len(row["question"]), len(ids))))
    return sums.index(max(sums))
