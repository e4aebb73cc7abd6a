"""Trains one PEFT plan on the rows beside this file, or checks the trained adapter beside it. Made by AutoPEFT.

    python train.py            trains from the start, into the folder ``trained``
    python train.py --check    loads the exported adapter and compares its logits with those of the trial

The plan stands in ``PLAN``; nothing else is read but ``train.jsonl``, ``validation.jsonl`` and the exported tensors.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import peft
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

PLAN: dict[str, Any] = json.loads("{}")
HERE = Path(__file__).parent
TOLERANCE = 1e-5


class Model(nn.Module):
    """The backbone with its head; only head and adapters train. To be trained, it is quantised as the trial's was."""

    def __init__(self, *, quantised: bool = False) -> None:
        super().__init__()
        if PLAN["loader"] == "AutoModel":
            options = {}
        else:
            options = {"num_labels": PLAN["outputs"], "ignore_mismatched_sizes": True} if PLAN["outputs"] else {}
        if quantised and PLAN["quantisation"]:
            packed = transformers.BitsAndBytesConfig(**PLAN["quantisation"], bnb_4bit_compute_dtype=torch.float32)
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
            options |= {"quantization_config": packed, "device_map": {"": device}}
        loader = getattr(transformers, PLAN["loader"])
        self.inner = loader.from_pretrained(backbone_path(), dtype=torch.float32, **options)
        self.inner.requires_grad_(False)
        if PLAN["padding"] is not None:
            self.inner.config.pad_token_id = PLAN["padding"]
        self.classifier = None
        if PLAN["loader"] == "AutoModel":
            self.classifier = nn.Linear(self.inner.config.hidden_size, PLAN["outputs"])
        self.head = dict((self.classifier or self.inner).named_parameters())
        if self.classifier is None:
            self.head = {name: self.head[name] for name in PLAN["head"]}
        else:
            self.head = {f"classifier.{name}": parameter for name, parameter in self.head.items()}
        self.adapted = self.inner
        self.eval()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        """Logits in float32."""
        answer = self.adapted(**batch)
        if self.classifier is None:
            logits: Tensor = answer.logits
            return logits.float()
        mask = batch["attention_mask"].unsqueeze(-1).float()
        pooled = (answer.last_hidden_state * mask).sum(1) / mask.sum(1).clamp(min=1)
        return nn.functional.linear(pooled, self.classifier.weight, self.classifier.bias)

    def adapt(self, config: dict[str, Any] | None) -> None:
        """Inserts the adapters, with the initial values of training unless a configuration for loading is given."""
        if PLAN["adapter"] == "autopeft":
            from autopeft.adapters import apply
            from search_spaces.configuration import Configuration

            apply(self.inner, Configuration.from_json(PLAN["configuration"]))
        else:
            self.adapted = peft.PeftModel(self.inner, peft.PeftConfig.from_peft_type(**(config or PLAN["config"])))
        for parameter in self.head.values():
            parameter.requires_grad_(True)
        count = sum(parameter.numel() for parameter in self.adapters().values())
        expected = PLAN["loaded_parameters" if config else "trainable_parameters"]
        assert count == expected, f"the adapters count {count:,} parameters, the plan says {expected:,}"

    def auxiliary_loss(self) -> Tensor | float:
        """What routers among the adapters add to the loss of the batch just seen."""
        if PLAN["adapter"] != "autopeft":
            return 0.0
        from autopeft.adapters import auxiliary_loss

        added = auxiliary_loss(self.inner)
        return 0.0 if added is None else added

    def adapters(self) -> dict[str, nn.Parameter]:
        """What trains and is no head."""
        head = {id(parameter) for parameter in self.head.values()}
        return {
            name: parameter
            for name, parameter in self.adapted.named_parameters()
            if parameter.requires_grad and id(parameter) not in head
        }


def backbone_path() -> str:
    """The checkpoint: a hub id or a folder, or the one that an installed package holds."""
    if PLAN["package"] is None:
        return str(PLAN["base"])
    from importlib.resources import files

    return str(files(PLAN["package"]) / "model")


def check() -> float:
    """The largest difference between the logits of the exported adapter and those of the trial."""
    model = Model()
    if PLAN["adapter"] == "autopeft":
        from autopeft.adapters import load_adapter

        load_adapter(model.inner, HERE)
    else:
        model.adapt(PLAN["loaded"])
        peft.set_peft_model_state_dict(model.adapted, load_file(HERE / "adapter_model.safetensors"))
    head = load_file(HERE / "head.safetensors") if model.head else {}
    with torch.no_grad():
        for name, parameter in model.head.items():
            parameter.copy_(head.get(name, head.get(name.removeprefix("classifier."))))
        batch = load_file(HERE / "check.safetensors")
        expected = batch.pop("logits")
        return float((model(batch) - expected).abs().max())


def encode(rows: list[dict[str, Any]], tokenizer: Any) -> tuple[dict[str, Tensor], Tensor]:
    """A batch and its labels: classes, numbers, or the tokens of the answers, -100 elsewhere."""
    if PLAN["kind"] != "causal":
        pairs = [row["pair"] for row in rows] if "pair" in rows[0] else None
        texts = [row["text"] for row in rows]
        options = {"truncation": True, "max_length": PLAN["max_length"], "padding": True, "return_tensors": "pt"}
        labels = torch.tensor([row["label"] for row in rows])
        return dict(tokenizer(texts, pairs, **options)), labels.float() if PLAN["kind"] == "numbers" else labels
    prompts = [tokenizer(row["prompt"])["input_ids"] for row in rows]
    answers = [tokenizer(row["completion"], add_special_tokens=False)["input_ids"] for row in rows]
    ends = [tokenizer.eos_token_id] if tokenizer.eos_token_id is not None else []
    answers = [[*answer, *ends] for answer in answers]
    whole = [[*a, *b][: PLAN["max_length"]] for a, b in zip(prompts, answers, strict=True)]
    longest = max(map(len, whole))
    ids, labels = (torch.full((len(rows), longest), fill) for fill in (tokenizer.pad_token_id or 0, -100))
    mask = torch.zeros_like(ids)
    for index, (tokens, prompt) in enumerate(zip(whole, prompts, strict=True)):
        ids[index, : len(tokens)] = torch.tensor(tokens)
        mask[index, : len(tokens)] = 1
        labels[index, len(prompt) : len(tokens)] = ids[index, len(prompt) : len(tokens)]
    return {"input_ids": ids, "attention_mask": mask}, labels


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, of answers that of each token predicted by the one before; squared error of numbers."""
    if PLAN["kind"] == "numbers":
        return nn.functional.mse_loss(logits.squeeze(-1), labels)
    if PLAN["kind"] == "causal":
        logits, labels = logits[:, :-1].transpose(1, 2), labels[:, 1:]
    return nn.functional.cross_entropy(logits, labels, ignore_index=-100)


def train(steps: int, output: Path) -> dict[str, float]:
    """The losses at the start, at the end and on the validation rows; adapters and head are in ``output`` then."""
    torch.manual_seed(PLAN["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = transformers.AutoTokenizer.from_pretrained(backbone_path())
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = Model(quantised=True)
    model.adapt(None)
    model.to(device)
    trained = {**model.adapters(), **{f"head.{name}": parameter for name, parameter in model.head.items()}}
    optimizer = torch.optim.AdamW(trained.values(), lr=PLAN["learning_rate"], weight_decay=0.01)
    warm_up = max(1, round(0.1 * steps))
    losses, rows = [], read_rows("train.jsonl")
    order = torch.cat([torch.randperm(len(rows)) for _ in range(1 + steps * PLAN["batch_size"] // len(rows))]).tolist()
    for step in range(steps):
        rate = (step + 1) / warm_up if step < warm_up else (steps - step) / max(1, steps - warm_up)
        optimizer.param_groups[0]["lr"] = PLAN["learning_rate"] * rate
        chosen = order[step * PLAN["batch_size"] : (step + 1) * PLAN["batch_size"]]
        batch, labels = encode([rows[row] for row in chosen], tokenizer)
        loss = loss_of(model({name: tensor.to(device) for name, tensor in batch.items()}), labels.to(device))
        optimizer.zero_grad()
        torch.autograd.backward(loss + model.auxiliary_loss())
        dead = [name for name, parameter in trained.items() if parameter.grad is None]
        assert not dead, f"no gradient reaches {dead[0]} and {len(dead) - 1} more"
        torch.nn.utils.clip_grad_norm_(trained.values(), 1.0)
        optimizer.step()
        losses.append(float(loss))
    output.mkdir(parents=True, exist_ok=True)
    save_file({name: p.detach().cpu().contiguous() for name, p in trained.items()}, output / "trained.safetensors")
    return {"first": losses[0], "last": losses[-1], "validation": validation_loss(model, tokenizer, device)}


def validation_loss(model: Model, tokenizer: Any, device: str) -> float:
    """Mean loss over batches of the validation rows."""
    rows, size, losses = read_rows("validation.jsonl"), PLAN["batch_size"], []
    with torch.no_grad():
        for start in range(0, len(rows), size):
            batch, labels = encode(rows[start : start + size], tokenizer)
            losses.append(float(loss_of(model({n: t.to(device) for n, t in batch.items()}), labels.to(device))))
    return sum(losses) / len(losses)


def read_rows(name: str) -> list[dict[str, Any]]:
    """The rows in a file of JSON lines beside this script."""
    if not (HERE / name).is_file():
        raise SystemExit(f"no {name} beside this script: put rows there, one JSON object a line, {PLAN['columns']}")
    return [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare the exported adapter with the trial")
    parser.add_argument("--steps", type=int, default=PLAN["steps"])
    parser.add_argument("--output", type=Path, default=HERE / "trained")
    given = parser.parse_args()
    if given.check:
        difference = check()
        print(f"largest difference of the logits: {difference:.3g}")
        raise SystemExit(0 if difference <= TOLERANCE else f"more than {TOLERANCE} apart")
    print(json.dumps(train(given.steps, given.output)))


if __name__ == "__main__":
    main()
