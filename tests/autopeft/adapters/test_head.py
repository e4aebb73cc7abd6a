import pytest
import torch
from transformers import AutoModel, AutoModelForSequenceClassification

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier, mean_over_tokens
from autopeft.adapters.models import load_classifier, model_spec
from autopeft.errors import ConfigurationError
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

STOCK_HEADS = {
    "bert": {"classifier.weight", "classifier.bias"},
    "bert without pooler": {
        "bert.pooler.dense.weight",
        "bert.pooler.dense.bias",
        "classifier.weight",
        "classifier.bias",
    },
    "roberta": {
        "classifier.dense.weight",
        "classifier.dense.bias",
        "classifier.out_proj.weight",
        "classifier.out_proj.bias",
    },
    "distilbert": {"pre_classifier.weight", "pre_classifier.bias", "classifier.weight", "classifier.bias"},
}


def classifier_of(folder, pooling, labels=3, seed=1, regression=False):
    return load_classifier(model_spec(str(folder), pooling), labels, regression, seed)


def test_a_mean_leaves_padding_out():
    hidden = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]]])
    assert mean_over_tokens(hidden, torch.tensor([[1, 1, 0]])).tolist() == [[2.0, 3.0]]


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_padding_changes_no_logits(checkpoint, family, pooling):
    classifier = classifier_of(checkpoint(family), pooling)
    ids = torch.randint(5, 50, (2, 6), generator=torch.Generator().manual_seed(1))
    alone = classifier({"input_ids": ids, "attention_mask": torch.ones_like(ids)})
    wide = torch.nn.functional.pad(ids, (0, 4), value=classifier.model.config.pad_token_id)
    padded = classifier({"input_ids": wide, "attention_mask": (torch.arange(10) < 6).long().expand(2, 10)})
    assert (alone - padded).abs().max() <= 1e-6
    assert alone.shape == (2, 3)


@pytest.mark.parametrize("name", STOCK_HEADS)
def test_of_a_stock_head_only_what_is_new_trains(checkpoint, name):
    classifier = classifier_of(checkpoint(name), "stock")
    assert set(classifier.head_parameters()) == STOCK_HEADS[name]
    trained = {key for key, parameter in classifier.model.named_parameters() if parameter.requires_grad}
    assert trained == STOCK_HEADS[name]


@pytest.mark.parametrize("name", STOCK_HEADS)
def test_a_new_head_still_trains_once_adapters_are_in(checkpoint, name):
    classifier = classifier_of(checkpoint(name), "stock")
    plan = uniform(describe(classifier.model, "tiny"), ("query",), Lora(2, 4.0), 1e-3)
    classifier.adapt(plan, seed=2)
    trained = classifier.trained_parameters()
    assert len(trained) == len(STOCK_HEADS[name]) + 6
    assert all(parameter.requires_grad for parameter in trained.values())
    assert {id(p) for p in classifier.parameters() if p.requires_grad} == {id(p) for p in trained.values()}


def test_a_mean_pooling_head_is_one_linear_layer_and_the_pooler_is_frozen(checkpoint):
    classifier = classifier_of(checkpoint("bert"), "mean")
    trained = {name: list(p.shape) for name, p in classifier.named_parameters() if p.requires_grad}
    assert trained == {"classifier.weight": [3, 16], "classifier.bias": [3]}
    assert set(classifier.head_parameters()) == set(trained)


def test_an_output_layer_that_the_checkpoint_brings_is_new_all_the_same(checkpoint, tmp_path):
    tuned = AutoModelForSequenceClassification.from_pretrained(checkpoint("bert"), num_labels=3)
    with torch.no_grad():
        tuned.classifier.weight.fill_(7.0)
    tuned.save_pretrained(tmp_path)
    for labels in (3, 5):
        classifier = classifier_of(tmp_path, "stock", labels)
        assert set(classifier.head_parameters()) == STOCK_HEADS["bert"]
        assert classifier.model.classifier.weight.abs().max() < 1
        assert classifier.model.classifier.weight.shape == (labels, 16)


@pytest.mark.parametrize("pooling", ["mean", "stock"])
def test_a_head_follows_its_seed_and_survives_saving(checkpoint, pooling, tmp_path, inputs):
    first, second, third = (classifier_of(checkpoint("distilbert"), pooling, seed=seed) for seed in (1, 1, 2))
    logits = first(inputs)
    assert torch.equal(logits, second(inputs))
    assert not torch.equal(logits, third(inputs))
    first.save_head(tmp_path)
    third.load_head(tmp_path)
    assert torch.equal(logits, third(inputs))


def test_a_head_of_another_width_is_refused(checkpoint, tmp_path):
    classifier_of(checkpoint("bert"), "mean", labels=3).save_head(tmp_path)
    with pytest.raises(ConfigurationError, match=r"has shape \[3, 16\], the model expects \[2, 16\]"):
        classifier_of(checkpoint("bert"), "mean", labels=2).load_head(tmp_path)


def test_a_regression_has_one_output(checkpoint, inputs):
    assert classifier_of(checkpoint("bert"), "mean", regression=True)(inputs).shape == (3, 1)


def test_a_classifier_is_in_evaluation_mode_with_adapters_and_without(checkpoint):
    classifier = classifier_of(checkpoint("bert"), "mean")
    assert not any(module.training for module in classifier.modules())
    classifier.adapt(uniform(describe(classifier.model, "tiny"), ("query",), Lora(2, 4.0), 1e-3), seed=2)
    assert not any(module.training for module in classifier.modules())


def test_the_mean_is_of_the_hidden_states_of_the_headless_model(checkpoint, inputs):
    classifier = classifier_of(checkpoint("roberta"), "mean")
    hidden = AutoModel.from_pretrained(checkpoint("roberta")).eval()(**inputs).last_hidden_state
    expected = (
        torch.stack([hidden[0].mean(0), hidden[1].mean(0), hidden[2, :5].mean(0)]) @ classifier.classifier.weight.T
    )
    assert torch.allclose(classifier(inputs), expected, atol=1e-6)
    assert isinstance(classifier, Classifier)
