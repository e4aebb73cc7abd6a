"""Memory that published decoders take to train, and what ``--device-memory`` makes of it; nothing is loaded.

    python benchmarks/large_models.py

LoRA of rank 8 on query and value, rows of 1,024 tokens, logits for all of them; in the last column for 256.
"""

from dataclasses import replace

import torch
from transformers import AutoModel, LlamaConfig, Qwen2Config

from autopeft.adapters.anatomy import describe
from autopeft.budget import Budget
from autopeft.errors import ConfigurationError
from autopeft.fitting import Asked, Head, choose, gigabytes
from autopeft.study import Fidelity, ModelSpec, Study
from search_spaces.configuration import uniform
from search_spaces.memory import Workload, training_memory
from search_spaces.methods.lora import Lora
from search_spaces.presets import layerwise
from search_spaces.quantisation import frozen_bytes

TOKENS, ROWS, BATCH, ANSWER = 1024, 2, 8, 256
HEADS = {"num_attention_heads": 32, "num_hidden_layers": 32, "hidden_size": 4096}
PUBLISHED = {
    "Llama-2-7B": LlamaConfig(**HEADS, num_key_value_heads=32, intermediate_size=11008, vocab_size=32_000),
    "Llama-3-8B": LlamaConfig(**HEADS, num_key_value_heads=8, intermediate_size=14336, vocab_size=128_256),
    "Qwen2.5-7B": Qwen2Config(
        num_attention_heads=28,
        num_key_value_heads=4,
        num_hidden_layers=28,
        hidden_size=3584,
        intermediate_size=18944,
        vocab_size=152_064,
    ),
}
MEMORIES = (12e9, 24e9, 40e9, 80e9)


def main():
    for name, config in PUBLISHED.items():
        with torch.device("meta"):
            backbone = describe(AutoModel.from_config(config), name)
        others = config.vocab_size * config.hidden_size
        plan = uniform(backbone, ("query", "value"), Lora(8, 16.0), 1e-4)
        work = Workload(
            ROWS,
            TOKENS,
            "language",
            outputs=config.vocab_size,
            other_parameters=others,
            precision="bfloat16",
            weight_bytes=2,
        )
        weights = [frozen_bytes(backbone, 2, bits, others) for bits in (None, "8bit", "4bit")]
        again = replace(work, quantisation="4bit", checkpointed=True)
        works = (work, replace(work, quantisation="4bit"), again, replace(again, said_tokens=ANSWER))
        peaks = [training_memory(plan, backbone, one).total for one in works]
        print("|", name, "|", " | ".join(f"{size / 1e9:.2f}" for size in (*weights, *peaks)), "|")
        head = Head("language", config.vocab_size, others)
        for memory in MEMORIES:
            for load_in in (None, "4bit"):
                said = chosen(study_of(backbone, load_in), plan, head, int(memory))
                print(f"    {gigabytes(memory)}, {load_in or 'not quantised'}: {said}")


def chosen(study, plan, head, memory):
    try:
        return choose(study, plan, head, Asked(halves=True), memory).note
    except ConfigurationError as error:
        return f"error: {error}"


def study_of(backbone, load_in):
    spec = ModelSpec(backbone.name, "stock", "0" * 64, load_in)
    space, fidelity = layerwise(backbone, (1e-4, 1e-2)), Fidelity(10, BATCH, TOKENS)
    end = (Budget(1, "1"), fidelity, 1e-3, "random", 1, 1, None, 0)
    return Study("x", spec, backbone, {}, "x", "accuracy", 0.5, space, (), *end)


if __name__ == "__main__":
    main()
