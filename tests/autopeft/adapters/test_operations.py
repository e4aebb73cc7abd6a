"""Operations by arithmetic against those that torch counts, with eager attention (sdpa on a CPU counts none)."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from autopeft.adapters import apply, remove
from autopeft.adapters.anatomy import describe
from search_spaces.cost import forward_flops


def counted(model, batch):
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(**batch)
    return counter.get_total_flops()


@pytest.mark.parametrize("family_name", ["bert", "llama", "gpt2"])
def test_operations_are_within_one_percent_of_what_torch_counts(method, family_name, make_zoo, everywhere, inputs_of):
    model = make_zoo(family_name)
    model.set_attn_implementation("eager")
    backbone = describe(model, family_name)
    plan = everywhere(method, backbone)
    if plan.is_empty:
        return
    batch = inputs_of(family_name)
    before = counted(model, batch)
    apply(model, plan, seed=0)
    added = counted(model, batch) - before
    expected = forward_flops(plan, backbone, tokens=batch["input_ids"].numel())
    assert abs(added - expected) <= 0.01 * added
    assert forward_flops(plan, backbone, tokens=30, merged=True) == (0 if method.mergeable else expected)
    remove(model)
    assert counted(model, batch) == before
