"""What packing saves and costs: padding, and CPU seconds of a step on padded and on packed rows, in turns.

``python -P benchmarks/packing.py`` prints a table; ``--spread`` is the standard deviation of log lengths, ``--batch``
the rows of a step. A Llama of random weights with LoRA on query and value; lengths are log-normal about 60 tokens, at
most 256, and ordered as trials order them, so that rows of like length share a batch. Ratios of CPU seconds, medians
over steps; nothing is learned. (-P: this file must not be taken for the package it measures.)
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace

import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from autopeft.adapters.anatomy import describe
from autopeft.adapters.head import Classifier
from search_spaces.configuration import uniform
from search_spaces.methods.lora import Lora
from workers.answers import AnswerRows
from workers.batches import training_order
from workers.training import loss_of, said_tokens

VOCABULARY, LONGEST, ROWS = 2_000, 256, 2_000
CPU = torch.device("cpu")


def main() -> None:
    """Prints a line for each spread."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--spread", type=float, nargs="+", default=[0.3, 0.6, 1.0])
    asked.add_argument("--batch", type=int, default=16)
    asked.add_argument("--steps", type=int, default=12)
    asked.add_argument("--width", type=int, default=128)
    options = asked.parse_args()
    torch.set_num_threads(1)
    model = classifier(options.width)
    print("spread  padding  padded to  in sequences  CPU seconds packed/padded")
    for spread in options.spread:
        rows = lengths_of(spread)
        order = training_order(rows.lengths, options.batch, options.steps, 0, 0)
        padded, packed = rows, replace(rows, is_packed=True)
        shapes = [[sort.batch(chosen, CPU)[0]["input_ids"].shape for chosen in order] for sort in (padded, packed)]
        told = int(rows.lengths[order].sum())
        padding = [1 - told / sum(count * width for count, width in sort) for sort in shapes]
        ratios = [seconds(model, packed, chosen) / seconds(model, padded, chosen) for chosen in order]
        sequences = sum(count for count, _ in shapes[1]) / len(order)
        print(
            f"{spread:>6}  {padding[0]:>7.1%}  {padding[1]:>9.1%}  {sequences:>12.1f}  "
            f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        )


def classifier(width: int) -> Classifier:
    """A tiny Llama with LoRA."""
    torch.manual_seed(0)
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": 4, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, max_position_embeddings=LONGEST, **sizes))
    model.config.use_cache = False
    found = Classifier(model, 0, set())
    found.adapt(uniform(describe(model, "tiny"), ("query", "value"), Lora(8, 16.0), 1e-3), seed=0)
    return found


def lengths_of(spread: float) -> AnswerRows:
    """Rows of random tokens, the last third of each being the answer."""
    generator = np.random.default_rng(0)
    lengths = np.clip(np.exp(generator.normal(np.log(60), spread, ROWS)), 4, LONGEST).astype(int)
    ids = [generator.integers(3, VOCABULARY, length).tolist() for length in lengths]
    return AnswerRows(
        ids=ids,
        starts=[max(1, 2 * length // 3) for length in lengths.tolist()],
        padding=0,
        labels=torch.zeros(ROWS, dtype=torch.int64),
        answers=[""] * ROWS,
        options=None,
        option_counts=(),
        max_length=LONGEST,
        end=None,
        decode=str,
    )


def seconds(model: Classifier, rows: AnswerRows, chosen: np.ndarray) -> float:
    """CPU seconds of a step's forward and backward pass, the batch's making included."""
    started = time.process_time()
    inputs, labels = rows.batch(chosen, CPU)
    model.zero_grad()
    loss_of(model(inputs, last=said_tokens(labels)), labels).backward()
    return time.process_time() - started


if __name__ == "__main__":
    main()
