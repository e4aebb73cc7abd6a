"""Peak memory of training: by arithmetic against what is measured, for every method on every family."""

import weakref

import pytest
import torch
import transformers
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from autopeft.adapters import TrainingRows, adapter_parameters, apply
from autopeft.adapters.anatomy import describe
from autopeft.adapters.models import load_classifier, model_spec
from autopeft.adapters.recomputing import recompute_layers
from search_spaces.configuration import Configuration, LayerPlan, uniform
from search_spaces.memory import Workload, training_memory
from search_spaces.methods.lora import Lora
from search_spaces.methods.serial import Serial
from workers.memory import MemoryMeter
from workers.training import loss_of, said_tokens

TOLERANCE = 0.15
CPU = torch.device("cpu")
SOME = ("bert", "modernbert", "llama", "gpt2", "t5", "vit")
MINILM = model_spec("minilm")


def batch_of(name, inputs_of):
    batch = inputs_of(name)
    return batch | {"decoder_input_ids": batch["input_ids"]} if name == "t5" else batch


def without_caches(model, attention):
    if model.config.model_type != "deberta-v2":
        model.set_attn_implementation(attention)
    if getattr(model.config, "use_cache", False):
        model.config.use_cache = False
    return model


def from_layer(plan, low):
    rows = tuple(LayerPlan() if layer < low else row for layer, row in enumerate(plan.layers))
    return Configuration(rows, plan.training)


def measured(model, batch, *, autocast=False):
    """A meter after one step."""
    meter = MemoryMeter(model, CPU)
    parameters = adapter_parameters(model)
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3)
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast), meter.forward_pass(noted=True):
        states = model(**batch).last_hidden_state
    states.sum().backward()
    optimizer.step()
    meter.after_step(parameters.values(), optimizer)
    return meter


def compare(name, method, make_zoo, inputs_of, everywhere, attention="sdpa", low=0, precision="float32"):
    model = without_caches(make_zoo(name), attention)
    backbone = describe(model, name)
    plan = from_layer(everywhere(method, backbone), low * (2 if name == "t5" else 1))
    if plan.is_empty:
        return
    batch = batch_of(name, inputs_of)
    apply(model, plan, seed=0, rows=TrainingRows(lambda: [batch], lambda b: model(**b).last_hidden_state.sum()))
    meter = measured(model, batch, autocast=precision != "float32")
    work = Workload(3, 5 if name == "vit" else 10, head="none", attention=attention, precision=precision)
    peak = training_memory(plan, backbone, work)
    assert peak.held == pytest.approx(meter.peak_bytes, rel=TOLERANCE)
    if precision == "float32":  # nearly all of it is exact, and no weight hides it
        assert peak.activations == pytest.approx(meter.saved_bytes, rel=0.06)


def test_the_peak_is_what_is_measured(zoo_family, method, make_zoo, inputs_of, everywhere):
    compare(zoo_family, method, make_zoo, inputs_of, everywhere)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_the_peak_is_what_is_measured_with_eager_attention(name, method, make_zoo, inputs_of, everywhere):
    compare(name, method, make_zoo, inputs_of, everywhere, "eager")


@pytest.mark.slow
def test_layers_below_the_lowest_adapted_one_keep_nothing(zoo_family, method, make_zoo, inputs_of, everywhere):
    compare(zoo_family, method, make_zoo, inputs_of, everywhere, low=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", SOME)
def test_the_peak_under_bfloat16_autocast_is_what_is_measured(name, method, make_zoo, inputs_of, everywhere):
    compare(name, method, make_zoo, inputs_of, everywhere, precision="bfloat16")


@pytest.mark.parametrize("name", ["bert", "llama"])
def test_starts_that_move_the_weight_are_kept_beside(name, initialisation, make_zoo, inputs_of, everywhere):
    compare(name, initialisation, make_zoo, inputs_of, everywhere)


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, temporaries too, as an allocator would."""

    def __init__(self, held):
        super().__init__()
        self.now = self.most = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                if storage._cdata not in self._known:
                    self._known.add(storage._cdata)
                    self.now += storage.nbytes()
                    weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes())
        self.most = max(self.most, self.now)
        return result

    def _gone(self, place, size):
        self._known.discard(place)
        self.now -= size


def live_peak(model, parameters, loss):
    """Most bytes of tensors alive in the second training step."""
    optimizer = torch.optim.AdamW(parameters, lr=1e-3, foreach=False)

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss().backward()
        optimizer.step()

    step()
    held = [*model.parameters(), *model.buffers(), *(v for state in optimizer.state.values() for v in state.values())]
    optimizer.zero_grad(set_to_none=True)
    with Live(held) as live:
        step()
    return sum(tensor.nbytes for tensor in held) + live.most


def padded_ids(rows, tokens, vocabulary):
    ids = torch.randint(1, vocabulary, (rows, tokens), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[0, tokens // 2 :] = 0
    return {"input_ids": ids, "attention_mask": mask}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rows", "tokens", "site", "inserted", "low", "options"),
    [
        (16, 64, "query", Lora(4, 8.0), 0, {}),
        (16, 64, "value", Lora(4, 8.0), 3, {}),
        (8, 128, "down", Lora(4, 8.0), 0, {"attention": "eager"}),
        (32, 32, "feed_forward", Serial(24), 2, {}),
        (32, 48, "query", Lora(4, 8.0), 1, {"checkpointed": True}),
    ],
)
def test_the_whole_peak_of_minilm_is_that_of_all_tensors_alive(rows, tokens, site, inserted, low, options):
    """Temporaries and all, as an allocator counts."""
    classifier = load_classifier(MINILM, 3, False, 0)
    classifier.model.set_attn_implementation(options.get("attention", "sdpa"))
    backbone = describe(classifier.model, "minilm")
    plan = from_layer(uniform(backbone, (site,), inserted, 1e-3), low)
    classifier.adapt(plan, 0)
    if options.get("checkpointed"):
        recompute_layers(classifier.model)
    batch, labels = padded_ids(rows, tokens, 20_000), torch.zeros(rows, dtype=torch.long)
    trained = list(classifier.trained_parameters().values())
    measured = live_peak(classifier, trained, lambda: loss_of(classifier(batch), labels))
    work = Workload(rows, tokens, "mean", head_parameters=3 * 384 + 3, outputs=3, **options)
    assert training_memory(plan, backbone, work).total == pytest.approx(measured, rel=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(("vocabulary", "said"), [(5000, 64), (5000, 8), (200, 64)])
@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_whole_peak_of_a_language_model_holds_its_logits(vocabulary, said, checkpointed):
    sizes = {"hidden_size": 64, "num_hidden_layers": 6, "num_attention_heads": 4, "num_key_value_heads": 2}
    config = transformers.LlamaConfig(**sizes, intermediate_size=192, vocab_size=vocabulary, use_cache=False)
    model = transformers.LlamaForCausalLM(config).eval().requires_grad_(False)
    backbone = describe(model, "llama")
    plan = uniform(backbone, ("query", "value"), Lora(4, 8.0), 1e-3)
    apply(model, plan, seed=0)
    if checkpointed:
        recompute_layers(model)
    batch = padded_ids(16, 64, vocabulary)
    labels = batch["input_ids"].clone()
    labels[:, : 64 - said + 1] = -100
    last = said_tokens(labels)
    measured = live_peak(
        model,
        list(adapter_parameters(model).values()),
        lambda: loss_of(model(**batch, logits_to_keep=last).logits.float(), labels),
    )
    head = {"other_parameters": 64 * vocabulary, "outputs": vocabulary, "said_tokens": last}
    work = Workload(16, 64, "language", checkpointed=checkpointed, **head)
    assert training_memory(plan, backbone, work).total == pytest.approx(measured, rel=TOLERANCE)
