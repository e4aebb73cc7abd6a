"""Peak memory by arithmetic: by hand, for published shapes, and what it depends on."""

from dataclasses import replace

import pytest

from search_spaces.backbone import Backbone, ModuleShape, NormShape
from search_spaces.configuration import Configuration, LayerPlan, Placement, Training, uniform
from search_spaces.errors import BackboneError, ConfigurationError
from search_spaces.memory import TrainingMemory, Workload, training_memory
from search_spaces.methods.lora import Lora
from search_spaces.methods.serial import Serial
from search_spaces.methods.vera import Vera

STEP = Workload(rows=3, tokens=5, head="none")
LLAMA_ROLES = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "output": "o_proj"}


def llama_2_7b():
    """As published: 32 layers, 4096 wide, 11008 inside; 6,607,343,616 parameters and a head of 131,072,000."""
    layers = []
    for layer in range(32):
        path = f"layers.{layer}"
        row = [ModuleShape(r, f"{path}.self_attn.{n}", 4096, 4096, bias=False) for r, n in LLAMA_ROLES.items()]
        row += [ModuleShape(r, f"{path}.mlp.{r}_proj", 4096, 11008, bias=False) for r in ("up", "gate")]
        layers.append((*row, ModuleShape("down", f"{path}.mlp.down_proj", 11008, 4096, bias=False)))
    norms = tuple(
        tuple(NormShape(f"layers.{layer}.{name}", 4096, bias=False) for name in ("input", "post"))
        for layer in range(32)
    )
    return Backbone("Llama-2-7B", "llama", 4096, 6_607_343_616, tuple(layers), norms, 32, 32, 128, 11008)


def only(backbone, layer, *placements):
    rows = [LayerPlan()] * backbone.layer_count
    rows[layer] = LayerPlan(placements)
    return Configuration(tuple(rows), Training(1e-3))


def test_a_serial_adapter_in_the_last_layer_keeps_what_is_counted_by_hand(tiny_backbone):
    peak = training_memory(only(tiny_backbone, 1, Placement("feed_forward", Serial(3))), tiny_backbone, STEP)
    tokens, hidden = 3 * 5, 8
    output_of_the_sublayer, inner = tokens * hidden, tokens * 3
    norm = tokens * hidden + 2 * tokens  # its input, a mean and a spread a token
    assert peak.activations == 4 * (output_of_the_sublayer + inner + norm)
    trained = 2 * 8 * 3 + 3 + 8
    assert (peak.trained, peak.gradients, peak.optimizer) == (4 * trained, 4 * trained, 8 * trained)
    assert peak.weights == 4 * tiny_backbone.parameter_count
    assert peak.temporaries == 2 * 4 * tokens * tiny_backbone.intermediate_size
    assert peak.held + peak.temporaries == peak.total


def test_nothing_trained_keeps_nothing(tiny_backbone):
    empty = Configuration((LayerPlan(),) * 2, Training(1e-3))
    assert training_memory(empty, tiny_backbone, STEP).total == 4 * tiny_backbone.parameter_count


def test_a_published_model_is_predicted_without_its_weights():
    backbone = llama_2_7b()
    plan = uniform(backbone, ("query", "value"), Lora(8, 16.0), 1e-3)
    work = Workload(8, 512, "language", other_parameters=131_072_000, outputs=32_000, precision="bfloat16")
    peak = training_memory(plan, backbone, work)
    assert peak.weights == 4 * 6_738_415_616
    assert peak.trained == 4 * 32 * 2 * 8 * 8192
    assert peak.loss == 4 * 8 * 511 * 32_000
    in_halves = training_memory(plan, backbone, replace(work, weight_bytes=2))
    assert in_halves.weights == peak.weights // 2
    checkpointed = training_memory(plan, backbone, replace(work, checkpointed=True))
    assert checkpointed.activations < peak.activations / 8
    top = only(backbone, 31, *plan.layers[31].placements)
    assert training_memory(top, backbone, work).activations < peak.activations / 20


@pytest.mark.parametrize("field", ["rows", "tokens"])
def test_more_to_read_keeps_more(tiny_backbone, field):
    plan = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    peaks = [training_memory(plan, tiny_backbone, replace(STEP, **{field: n})).total for n in (2, 4, 8)]
    assert peaks == sorted(set(peaks))


def test_eager_attention_keeps_its_matrices(tiny_backbone):
    plan = uniform(tiny_backbone, ("key",), Lora(2, 4.0), 1e-3)
    long = replace(STEP, tokens=200)
    eager = training_memory(plan, tiny_backbone, replace(long, attention="eager")).activations
    assert eager > training_memory(plan, tiny_backbone, replace(long, padded=False)).activations + 4 * 3 * 2 * 200**2


def test_rows_of_one_length_need_no_mask(tiny_backbone):
    plan = uniform(tiny_backbone, ("query",), Lora(2, 4.0), 1e-3)
    with_mask, without = (training_memory(plan, tiny_backbone, replace(STEP, padded=p)) for p in (True, False))
    assert with_mask.activations - without.activations == 2 * 4 * 3 * 5 * 5


def test_projections_that_modules_share_are_held_once(tiny_backbone):
    plan = uniform(tiny_backbone, ("query", "down"), Vera(3), 1e-3)
    widest_in, widest_out = 16, 8
    peak = training_memory(plan, tiny_backbone, STEP)
    assert peak.weights == 4 * (tiny_backbone.parameter_count + 3 * (widest_in + widest_out))


def test_a_layer_met_before_is_not_computed_anew_and_costs_the_same(tiny_backbone):
    memory = TrainingMemory(tiny_backbone, STEP)
    plans = [uniform(tiny_backbone, (site,), Lora(2, 4.0), 1e-3) for site in ("query", "value", "query")]
    peaks = [memory.peak(plan) for plan in plans]
    assert peaks == [training_memory(plan, tiny_backbone, STEP) for plan in plans]


def test_what_is_not_known_is_refused(tiny_backbone):
    stranger = replace(tiny_backbone, family="mamba")
    with pytest.raises(BackboneError, match="training memory of tiny: family 'mamba' is not known; known: bert"):
        TrainingMemory(stranger, STEP)
    for field, value in (("rows", 0), ("attention", "flash"), ("precision", "fp8"), ("head", "x"), ("weight_bytes", 3)):
        with pytest.raises(ConfigurationError, match=field.split("_")[0]):
            replace(STEP, **{field: value})
