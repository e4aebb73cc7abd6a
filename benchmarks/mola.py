"""What MoLA costs: forward and backward at 8 experts, top-2, against plain LoRA of equal active rank.

    python benchmarks/mola.py [--device cuda] [--pairs 20]

Times one training step without the optimizer (loss, auxiliary loss, backward) of both plans on MiniLM, alternating, and
prints the median of the ratios with its quartiles, for each rank and router. LoRA has rank 2 r where the experts have
rank r: as much as a token's two experts have together. All linear modules, batches of 32 rows of 64 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from autopeft.adapters import adapter_parameters, apply, auxiliary_loss, remove
from autopeft.adapters.anatomy import describe
from autopeft.adapters.models import load_classifier, model_spec
from search_spaces.configuration import uniform
from search_spaces.cost import forward_flops, trainable_parameters
from search_spaces.methods.lora import Lora
from search_spaces.methods.mola import Mola
from search_spaces.routers import Dynmole, TopK

ROWS, TOKENS = 32, 64
EXPERTS = 8


def synchronize(device):
    if device == "cuda":
        torch.cuda.synchronize()


def seconds(model, batch, device):
    synchronize(device)
    started = time.perf_counter()
    loss = model(**batch).last_hidden_state.square().mean()
    added = auxiliary_loss(model)
    (loss if added is None else loss + added).backward()
    synchronize(device)
    taken = time.perf_counter() - started
    for parameter in adapter_parameters(model).values():
        parameter.grad = None
    return taken


def ratios(models, batch, pairs, device):
    """Seconds of the second model over those of the first, in alternating order."""
    found = []
    for pair in range(pairs + 2):
        first, second = (models, models[::-1])[pair % 2]
        taken = {id(model): seconds(model, batch, device) for model in (first, second)}
        if pair >= 2:
            found.append(taken[id(models[1])] / taken[id(models[0])])
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--pairs", type=int, default=20)
    given = parser.parse_args()
    models = [load_classifier(model_spec("minilm"), 2, False, 0).model.to(given.device) for _ in range(2)]
    backbone = describe(models[0], "minilm")
    ids = torch.randint(1000, 20000, (ROWS, TOKENS), generator=torch.Generator().manual_seed(0)).to(given.device)
    batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    print(f"{given.device}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    for router in (TopK(2), Dynmole()):
        for rank in (2, 4, 8):
            plans = [Lora(2 * rank, 4.0 * rank), Mola(EXPERTS, rank, 2.0 * rank, router)]
            plans = [uniform(backbone, backbone.roles, method, 1e-3) for method in plans]
            for model, plan in zip(models, plans, strict=True):
                remove(model)
                apply(model, plan, seed=0)
            found = ratios(models, batch, given.pairs, given.device)
            low, middle, high = statistics.quantiles(found, n=4)
            counts = [f"{trainable_parameters(plan, backbone):,}" for plan in plans]
            flops = [forward_flops(plan, backbone, ROWS * TOKENS) / 1e9 for plan in plans]
            print(
                f"{router.name:<8} rank {rank}: {middle:.2f} times LoRA of rank {2 * rank} "
                f"(quartiles {low:.2f} to {high:.2f}; {counts[0]} and {counts[1]} parameters, "
                f"{flops[0]:.2f} and {flops[1]:.2f} GFLOP added forward)"
            )


if __name__ == "__main__":
    main()
