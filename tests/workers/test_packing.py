"""Several rows in one sequence: the same labels, the same losses and gradients as each row has alone."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import transformers as hf
from hypothesis import given
from hypothesis import strategies as st

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from autopeft.adapters.packing import counted_tokens, require_packable
from autopeft.adapters.parts import auxiliary_loss
from autopeft.errors import ConfigurationError
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.methods.prefix import Prefix
from workers.answers import IGNORED, AnswerRows
from workers.packing import first_fit
from workers.training import TrainingRun, loss_of, said_tokens, widest_step

CPU = torch.device("cpu")
WIDE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
SIZES = {"vocab_size": 60, "max_position_embeddings": 64, "initializer_range": 0.3, "pad_token_id": 0}
GROUPED = WIDE | SIZES | {"num_key_value_heads": 2}
MODELS = {
    "llama": lambda: hf.LlamaForCausalLM(hf.LlamaConfig(**GROUPED)),
    "mistral": lambda: hf.MistralForCausalLM(hf.MistralConfig(**GROUPED, sliding_window=5)),
    "qwen2": lambda: hf.Qwen2ForCausalLM(hf.Qwen2Config(**GROUPED)),
    "qwen3": lambda: hf.Qwen3ForCausalLM(hf.Qwen3Config(**GROUPED, head_dim=8)),
    "gemma": lambda: hf.GemmaForCausalLM(hf.GemmaConfig(**GROUPED, head_dim=8)),
    "phi3": lambda: hf.Phi3ForCausalLM(hf.Phi3Config(**GROUPED, bos_token_id=1, eos_token_id=2)),
    "gpt2": lambda: hf.GPT2LMHeadModel(
        hf.GPT2Config(n_embd=32, n_layer=2, n_head=4, n_positions=64, vocab_size=60, initializer_range=0.3)
    ),
}


def classifier_of(family, attention="sdpa"):
    torch.manual_seed(0)
    model = MODELS[family]()
    model.set_attn_implementation(attention)
    model.config.use_cache = False
    return Classifier(model, 0, set())


def rows_of(lengths=(9, 3, 14, 6, 2, 11, 5, 7), max_length=20, spans=None):
    generator = np.random.default_rng(0)
    ids = [generator.integers(3, 60, length).tolist() for length in lengths]
    starts = [max(1, length // 2) for length in lengths]
    return AnswerRows(
        ids=ids,
        starts=starts,
        padding=0,
        labels=torch.zeros(len(ids), dtype=torch.int64),
        answers=[""] * len(ids),
        options=None,
        option_counts=(),
        max_length=max_length,
        end=2,
        decode=str,
        spans=spans,
    )


def both(rows):
    return rows, replace(rows, is_packed=True)


def summed(classifier, rows, chosen):
    inputs, labels = rows.batch(np.array(chosen), CPU)
    return loss_of(classifier(inputs, last=said_tokens(labels)), labels, "sum")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("family", MODELS)
def test_packed_rows_have_the_losses_that_each_has_alone(family, attention):
    classifier, (apart, packed) = classifier_of(family, attention), both(rows_of())
    alone = [summed(classifier, apart, [row]).item() for row in range(8)]
    together = summed(classifier, packed, range(8))
    assert packed.batch(np.arange(8), CPU)[0]["input_ids"].shape == (3, 20)
    assert together.item() == pytest.approx(sum(alone), abs=1e-4)  # of 57 tokens: 2e-6 a token
    count = int(apart.label_counts.sum())
    padded = summed(classifier, apart, range(8))
    assert abs(together.item() - padded.item()) / count <= 1e-5


@pytest.mark.parametrize("family", ["llama", "qwen2", "gpt2"])
@pytest.mark.parametrize("method", [Lora(2, 4.0), Prefix(3), Mola(3, 2, 4.0)], ids=lambda method: method.name)
def test_gradients_of_packed_rows_are_those_of_padded_ones(family, method):
    classifier, (apart, packed) = classifier_of(family), both(rows_of())
    backbone = describe(classifier.model, "tiny")
    if isinstance(method, Prefix):
        plan = Configuration(
            tuple(LayerPlan((Placement("attention", Prefix(length)),)) for length in (2, 5)), Training(1e-2)
        )
    else:
        plan = uniform(backbone, backbone.roles, method, 1e-2)
    classifier.adapt(plan, seed=1)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in classifier.trained_parameters().values():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    found = []
    for rows in (apart, packed):
        classifier.zero_grad()
        loss = summed(classifier, rows, range(8)) / 57
        added = auxiliary_loss(classifier.model)
        (loss if added is None else loss + added).backward()
        found.append({name: p.grad.clone() for name, p in classifier.trained_parameters().items()})
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, atol=1e-5, rtol=1e-4)


def test_a_training_run_on_packed_rows_ends_where_one_on_padded_rows_does():
    curves, ends = [], []
    order = np.array([[0, 1, 2, 3], [4, 5, 6, 7], [3, 2, 1, 0]])
    for rows in both(rows_of()):
        for accumulation in (1, 2):
            classifier = classifier_of("llama")
            classifier.adapt(
                uniform(describe(classifier.model, "tiny"), ("query", "value"), Lora(2, 4.0), 1e-2), seed=1
            )
            run = TrainingRun(classifier, rows, order, 1e-2, accumulation=accumulation)
            run.run(3)
            curves.append([loss for _, loss in run.curve])
            ends.append(torch.cat([p.detach().flatten() for p in classifier.trained_parameters().values()]))
    for curve, end in zip(curves[1:], ends[1:], strict=True):
        assert curve == pytest.approx(curves[0], abs=1e-5)
        torch.testing.assert_close(end, ends[0], atol=1e-4, rtol=1e-3)


def test_labels_of_a_packed_batch_are_those_of_its_rows():
    spans = [[1, 2, 4, 6], [2, 3]]
    rows = replace(rows_of((6, 3), 10, spans), is_packed=True)
    inputs, labels = rows.batch(np.array([1, 0]), CPU)
    first, second = rows.ids
    assert inputs["input_ids"].tolist() == [[*first, *second]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1, 2]]
    expected = [IGNORED, first[1], IGNORED, IGNORED, first[4], first[5], IGNORED, IGNORED, second[2]]
    assert labels.tolist() == [expected]
    assert "attention_mask" not in inputs


def test_padding_is_told_from_tokens():
    rows = replace(rows_of((6, 2, 2, 5), 8), is_packed=True)
    inputs, _ = rows.batch(np.arange(4), CPU)
    assert inputs["position_ids"].tolist() == [[0, 1, 2, 3, 4, 5, 0, 1], [0, 1, 2, 3, 4, 0, 1, 0]]
    assert counted_tokens(inputs["position_ids"]).tolist() == [[1] * 8, [1] * 7 + [0]]
    assert counted_tokens(inputs["position_ids"]).sum() == rows.lengths.sum()


@given(lengths=st.lists(st.integers(2, 40), min_size=1, max_size=30), capacity=st.integers(2, 40))
def test_every_row_has_a_place_and_no_sequence_is_too_long(lengths, capacity):
    bins = first_fit(lengths, capacity)
    assert sorted(row for rows in bins for row in rows) == list(range(len(lengths)))
    assert all(len(rows) == 1 or sum(lengths[row] for row in rows) <= capacity for rows in bins)
    assert len(bins) <= len(lengths)


def test_the_widest_step_of_packed_rows_has_most_tokens():
    apart, packed = both(rows_of((9, 2, 7, 7)))
    order = np.array([[0, 1], [2, 3]])
    assert (widest_step(apart, order), widest_step(packed, order)) == (0, 1)


def test_a_family_whose_mask_hears_no_positions_is_refused():
    require_packable("llama", "tiny")
    with pytest.raises(ConfigurationError, match="packing on tiny: opt cannot, its attention mask is made without"):
        require_packable("opt", "tiny")


def test_what_is_packed_stands_in_the_fidelity_only_if_it_is_asked_for():
    from autopeft.fidelity import Fidelity

    assert "packing" not in Fidelity(1, 1, 2).to_json()
    assert Fidelity.from_json(json.loads(json.dumps(Fidelity(1, 1, 2, packing=True).to_json()))).packing
