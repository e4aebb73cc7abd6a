"""Operations by arithmetic against those that torch counts, with eager attention (sdpa on a CPU counts none)."""

import torch
from torch.utils.flop_counter import FlopCounterMode

from autopeft.adapters import apply, remove
from autopeft.adapters.anatomy import describe
from search_spaces.cost import forward_flops


def counted(model, batch):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**batch)
    return counter.get_total_flops()


def test_operations_are_within_one_percent_of_what_torch_counts(method, zoo_family, make_zoo, everywhere, inputs_of):
    model = make_zoo(zoo_family)
    if zoo_family != "deberta-v2":  # which knows no other attention
        model.set_attn_implementation("eager")
    backbone = describe(model, zoo_family)
    plan = everywhere(method, backbone)
    if plan.is_empty:
        return
    batch = inputs_of(zoo_family)
    if zoo_family == "t5":  # arithmetic takes decoders to read as many tokens as encoders
        batch["decoder_input_ids"] = batch["input_ids"]
    before = counted(model, batch)
    apply(model, plan, seed=0)
    added = counted(model, batch) - before
    tokens = 3 * 5 if zoo_family == "vit" else 3 * 10
    expected = forward_flops(plan, backbone, tokens)
    assert abs(added - expected) <= 0.01 * added
    assert forward_flops(plan, backbone, tokens, merged=True) == (0 if method.mergeable else expected)
    remove(model)
    assert counted(model, batch) == before
