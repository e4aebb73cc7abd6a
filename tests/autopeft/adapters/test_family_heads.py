"""Every family gets the head that a kind of task needs."""

import pytest
import torch
from tokenizers import Tokenizer, models
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, PreTrainedTokenizerFast

from autopeft.adapters.anatomy import describe
from autopeft.adapters.families import FAMILIES
from autopeft.adapters.models import (
    DECODERS,
    IMAGE_FAMILIES,
    WITHOUT_MEAN,
    load_classifier,
    load_image_classifier,
    load_image_processor,
    load_language_model,
    load_tokenizer,
    model_spec,
    require_readable,
)
from autopeft.errors import BackboneError
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora

TEXT_FAMILIES = [name for name in FAMILIES if name not in IMAGE_FAMILIES]
MEAN_FAMILIES = [name for name in TEXT_FAMILIES if name not in WITHOUT_MEAN]
SIDES = [
    *((name, False) for name in TEXT_FAMILIES),
    *((name, True) for name in DECODERS if name != "gpt2"),  # which counts positions from the left edge
]
END = 2


@pytest.fixture
def zoo_checkpoint(make_zoo, tmp_path):
    """Folder of the tiny model of a family; as it is, or with its language-model head."""

    def make(name, generates=False):
        model = make_zoo(name)
        if generates:
            torch.manual_seed(1)
            headed = AutoModelForCausalLM.from_config(model.config)
            headed.base_model.load_state_dict(model.state_dict())
            model = headed
        model.save_pretrained(tmp_path)
        return tmp_path

    return make


def rows(name, padding):
    """Two rows of six tokens, one of which ends a text where T5 asks for that."""
    ids = torch.randint(5, 50, (2, 6), generator=torch.Generator().manual_seed(1))
    if name == "t5":
        ids[:, -1] = 1
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def padded(batch, padding, left):
    widths = (4, 0) if left else (0, 4)
    return {
        "input_ids": torch.nn.functional.pad(batch["input_ids"], widths, value=padding),
        "attention_mask": torch.nn.functional.pad(batch["attention_mask"], widths),
    }


def with_end_token(folder):
    """Saves a tokenizer that knows an end, and no padding, as GPT-2's does."""
    words = Tokenizer(models.WordLevel({f"w{n}": n for n in range(50)}, unk_token="w1"))
    PreTrainedTokenizerFast(tokenizer_object=words, eos_token=f"w{END}", unk_token="w1").save_pretrained(folder)


def classifier_of(folder, name, pooling):
    if name in DECODERS:
        with_end_token(folder)
    return load_classifier(model_spec(str(folder), pooling), 3, False, seed=1)


def test_every_family_has_a_head_of_some_kind():
    assert set(DECODERS) | set(WITHOUT_MEAN) | set(IMAGE_FAMILIES) <= set(FAMILIES)
    assert all((FAMILIES[name].output_layer == "score") == (name in DECODERS) for name in FAMILIES)


@pytest.mark.parametrize("name", TEXT_FAMILIES)
def test_a_stock_head_trains_what_is_new_and_every_adapter(zoo_checkpoint, name):
    classifier = classifier_of(zoo_checkpoint(name), name, "stock")
    assert all(
        key.startswith(("classif", "score", "head.", "pre_", "pooler", "bert.pooler")) or "pooler" in key
        for key in classifier.head_parameters()
    )
    backbone = describe(classifier.model, name)
    site = "query" if "query" in backbone.roles else "qkv"
    classifier.adapt(uniform(backbone, (site,), Lora(2, 4.0), 1e-3), seed=2)
    torch.nn.functional.cross_entropy(classifier(rows(name, 0)), torch.tensor([0, 2])).backward()
    trained = classifier.trained_parameters()
    assert {id(p) for p in classifier.parameters() if p.grad is not None} == {id(p) for p in trained.values()}


@pytest.mark.parametrize(("name", "left"), SIDES)
def test_padding_on_either_side_changes_no_logits(zoo_checkpoint, name, left):
    classifier = classifier_of(zoo_checkpoint(name), name, "stock")
    padding = classifier.model.config.pad_token_id
    batch = rows(name, padding)
    logits = classifier(batch)
    assert logits.shape == (2, 3)
    assert (logits - classifier(padded(batch, padding, left))).abs().max() <= 1e-5


@pytest.mark.parametrize("name", MEAN_FAMILIES)
def test_a_mean_over_tokens_works_on_every_text_family(zoo_checkpoint, name):
    classifier = classifier_of(zoo_checkpoint(name), name, "mean")
    batch = rows(name, 0)
    assert (classifier(batch) - classifier(padded(batch, 0, left=False))).abs().max() <= 1e-5


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_classifies_from_the_last_token_that_is_no_padding(zoo_checkpoint, name):
    classifier = classifier_of(zoo_checkpoint(name), name, "stock")
    assert classifier.model.config.pad_token_id == END
    assert not classifier.model.config.use_cache
    batch = padded(rows(name, END), END, left=False)
    hidden = classifier.model.base_model(**batch).last_hidden_state[:, 5]
    assert torch.allclose(classifier(batch), classifier.model.score(hidden), atol=1e-6)


def test_a_decoder_without_padding_and_end_says_so(zoo_checkpoint):
    spec = model_spec(str(zoo_checkpoint("gpt2")), "stock")
    with pytest.raises(BackboneError, match="neither a padding nor an end token"):
        load_classifier(spec, 2, False, seed=0)


@pytest.mark.parametrize("name", DECODERS)
def test_a_language_model_keeps_its_own_head_and_trains_none_of_it(zoo_checkpoint, name):
    folder = zoo_checkpoint(name, generates=True)
    model = load_language_model(model_spec(str(folder), "stock"))
    assert model.head_parameters() == {}
    assert not any(parameter.requires_grad for parameter in model.parameters())
    batch = rows(name, 0)
    stock = AutoModelForCausalLM.from_pretrained(folder).eval()(**batch).logits
    assert torch.equal(model(batch), stock)
    assert torch.allclose(model(batch, last=2), stock[:, -2:], atol=1e-6)
    backbone = describe(model.model, name)
    model.adapt(uniform(backbone, backbone.roles, Lora(2, 4.0), 1e-3), seed=2)
    model(batch).sum().backward()
    assert all(parameter.grad is not None for parameter in model.trained_parameters().values())


def test_a_checkpoint_without_a_language_model_head_is_refused(zoo_checkpoint):
    with pytest.raises(BackboneError, match="has no language-model head"):
        load_language_model(model_spec(str(zoo_checkpoint("llama")), "stock"))


@pytest.mark.parametrize(
    ("name", "kind", "pooling", "message"),
    [
        ("bert", "causal-lm", "stock", "bert generates no text.*give one of the families llama"),
        ("t5", "classification", "mean", "t5 takes its stock head only"),
        ("vit", "classification", "stock", "vit reads images, the task holds text"),
        ("bert", "image-classification", "stock", "bert reads text, the task holds images"),
    ],
)
def test_what_a_family_cannot_do_is_refused_before_weights_are_loaded(zoo_checkpoint, name, kind, pooling, message):
    with pytest.raises(BackboneError, match=message):
        require_readable(model_spec(str(zoo_checkpoint(name)), pooling), 16, kind)


def test_a_checkpoint_is_checked_for_what_it_reads_where_no_kind_is_named(zoo_checkpoint):
    with pytest.raises(BackboneError, match="no preprocessor_config"):
        require_readable(model_spec(str(zoo_checkpoint("vit")), "stock"), 16)


def test_a_vision_model_gets_a_new_output_layer(zoo_checkpoint):
    spec = model_spec(str(zoo_checkpoint("vit")), "stock")
    classifier = load_image_classifier(spec, 3, seed=1)
    assert set(classifier.head_parameters()) == {"classifier.weight", "classifier.bias"}
    backbone = describe(classifier.model, "vit")
    classifier.adapt(uniform(backbone, backbone.roles, Lora(2, 4.0), 1e-3), seed=2)
    logits = classifier({"pixel_values": torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))})
    assert logits.shape == (2, 3)
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in classifier.trained_parameters().values())
    with pytest.raises(BackboneError, match="no preprocessor_config"):
        load_image_processor(spec)


def test_a_tokenizer_without_padding_pads_with_its_end(zoo_checkpoint):
    folder = zoo_checkpoint("gpt2")
    with_end_token(folder)
    assert load_tokenizer(model_spec(str(folder), "stock")).pad_token_id == END


def test_the_logits_are_those_of_the_stock_class(zoo_checkpoint):
    folder = zoo_checkpoint("t5")
    classifier = load_classifier(model_spec(str(folder), "stock"), 3, False, seed=1)
    stock = AutoModelForSequenceClassification.from_config(classifier.model.config).eval()
    stock.load_state_dict(classifier.model.state_dict())
    batch = rows("t5", 0)
    assert torch.allclose(classifier(batch), stock(**batch).logits, atol=1e-6)
