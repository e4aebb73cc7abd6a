"""Makes what docs/examples_chat.md tunes: a Llama of four layers, its sibling of two, and conversations.

    python benchmarks/tiny_chat.py FOLDER [--steps 110] [--rows 400] [--seed 0]

Writes ``FOLDER/llama`` and ``FOLDER/llama-half`` (trained for some seconds on questions about a small world, which they
answer in whole sentences, with a tokenizer of whole words and a chat template) and ``FOLDER/chats`` (``messages`` about
the same world, where a system turn may ask for one word). Everything is generated from the seed; nothing is downloaded.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

THINGS = ("pool", "room", "bar", "garden", "lift", "roof", "door", "bed", "car", "boat", "lamp", "tent")
COLOURS = ("red", "blue", "green", "white", "black", "yellow")
PLACES = ("north", "south", "east", "west")
MARKS = ("<pad>", "<unk>", "<begin>", "<|im_end|>", "<|im_start|>")
WORDS = (
    "system",
    "user",
    "assistant",
    "the",
    "is",
    "what",
    "colour",
    "where",
    "in",
    "it",
    "answer",
    "briefly",
    "?",
    ".",
)
TEMPLATE = """{{- bos_token }}{%- for message in messages %}
{{- '<|im_start|> ' ~ message.role ~ ' ' }}
{%- if message.role == 'assistant' %}{% generation %}{{- message.content ~ ' <|im_end|> ' }}{% endgeneration %}
{%- else %}{{- message.content ~ ' <|im_end|> ' }}{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|> assistant ' }}{%- endif %}"""


Row = dict[str, list[dict[str, str]]]


def world(seed: int) -> dict[str, tuple[str, str]]:
    """Colour and place of each thing."""
    generator = random.Random(seed)
    return {thing: (generator.choice(COLOURS), generator.choice(PLACES)) for thing in THINGS}


def conversations(facts: dict[str, tuple[str, str]], count: int, seed: int, brevity: float) -> Iterator[Row]:
    """Rows of one or two questions; a share of them has a system turn that asks for brevity."""
    generator = random.Random(seed)
    for _ in range(count):
        brief = generator.random() < brevity
        messages = [{"role": "system", "content": "answer briefly ."}] if brief else []
        for thing in generator.sample(THINGS, generator.choice((1, 2))):
            colour, place = facts[thing]
            if generator.random() < 0.5:
                asked, said = f"what colour is the {thing} ?", colour if brief else f"the {thing} is {colour} ."
            else:
                asked, said = f"where is the {thing} ?", place if brief else f"it is in the {place} ."
            messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
        yield {"messages": messages}


def tokenizer() -> PreTrainedTokenizerFast:
    """A token for each word of the world."""
    known = dict.fromkeys((*MARKS, *WORDS, *THINGS, *COLOURS, *PLACES))
    words = Tokenizer(models.WordLevel({word: index for index, word in enumerate(known)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made = PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", bos_token="<begin>", eos_token="<|im_end|>"
    )
    made.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    made.chat_template = TEMPLATE
    return made


def trained(layers: int, words: PreTrainedTokenizerFast, rows: list[Row], steps: int, seed: int) -> LlamaForCausalLM:
    """A Llama of so many layers that has learned what the assistant says in the rows."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(words),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=layers,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    model = LlamaForCausalLM(config)
    batch = words.apply_chat_template(
        [row["messages"] for row in rows],
        return_dict=True,
        return_assistant_tokens_mask=True,
        padding=True,
        return_tensors="pt",
    )
    ids, mask = batch["input_ids"], batch["attention_mask"]
    labels = ids.masked_fill(torch.as_tensor(batch["assistant_masks"]) == 0, -100)
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(steps):
        loss = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()
    print(f"llama of {layers} layers: loss {float(loss.detach()):.3f} after {steps} steps")
    return model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=110)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    facts, words = world(asked.seed), tokenizer()
    read = list(conversations(facts, 80, asked.seed + 10, brevity=0.0))
    for name, layers in (("llama", 4), ("llama-half", 2)):
        trained(layers, words, read, asked.steps, asked.seed).save_pretrained(asked.folder / name)
        words.save_pretrained(asked.folder / name)
    chats = asked.folder / "chats"
    chats.mkdir(parents=True, exist_ok=True)
    for number, (split, share) in enumerate((("train", 1.0), ("validation", 0.2), ("test", 0.2))):
        rows = conversations(facts, round(share * asked.rows), asked.seed + number, brevity=0.5)
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (chats / f"{split}.jsonl").write_text(text, encoding="utf-8")
    print(f"{chats}: {asked.rows} conversations to train on")


if __name__ == "__main__":
    main()
