"""Trials as they are trained without this service: transformers, peft and nothing of ours in the model.

``naive_trial`` is what people write (HF Trainer, a process each, padded to the greatest length), ``honest_trial`` what
they could (one process, batches of like length). ``trials.py`` times both beside the worker's own.
"""

# ruff: noqa: D102
from __future__ import annotations

import tempfile
import time

STARTED = time.process_time()


class Clock:
    """CPU seconds of each part of a trial."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}
        self.last = time.process_time()

    def resume(self) -> None:
        """What passed since the last lap is no part of the trial."""
        self.last = time.process_time()

    def lap(self, part: str) -> None:
        now = time.process_time()
        self.parts[part] = self.parts.get(part, 0.0) + now - self.last
        self.last = now


class Stock:
    """Transformers' model, peft's layers, mean pooling and a linear head; nothing of ours in it.

    Args:
        study: Model and task.
        configuration: What peft is told to insert.
        outputs: Classes.
        initial: Values to begin from, by their names in the headless model; None: peft's own.
    """

    def __init__(self, study, configuration, outputs: int, initial=None) -> None:
        import peft
        import torch
        from transformers import AutoModel

        from autopeft.adapters.sources import resolve

        torch.manual_seed(study.seed)
        headless = AutoModel.from_pretrained(resolve(study.model.source).path)
        places = {study.backbone.module(layer, site).path: m for layer, site, m in configuration.placements()}
        rank = next(iter(places.values())).rank
        config = peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=list(places))
        self.model = peft.get_peft_model(headless, config)
        self.head = torch.nn.Linear(study.backbone.hidden_size, outputs)
        torch.nn.init.normal_(self.head.weight, 0.0, 0.02)
        torch.nn.init.zeros_(self.head.bias)
        if initial is not None:
            self._begin_from(initial)

    def _begin_from(self, initial) -> None:
        import torch

        named = {
            name.removeprefix("base_model.model.").replace(".default.", "."): parameter
            for name, parameter in self.model.named_parameters()
            if parameter.requires_grad
        }
        named |= {f"classifier.{name}": parameter for name, parameter in self.head.named_parameters()}
        assert set(named) == set(initial)
        with torch.no_grad():
            for name, value in initial.items():
                named[name].copy_(value)

    def logits(self, **inputs):
        hidden = self.model(**inputs).last_hidden_state
        weights = inputs["attention_mask"].unsqueeze(-1).float()
        return self.head((hidden * weights).sum(1) / weights.sum(1).clamp(min=1))

    def module(self):
        """As the Trainer wants it: a module that gives loss and logits."""
        import torch

        stock = self

        class Headed(torch.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model, self.head = stock.model, stock.head
                self.losses: list[float] = []

            def forward(self, input_ids, attention_mask, token_type_ids=None, labels=None):
                inputs = {"input_ids": input_ids, "attention_mask": attention_mask, "token_type_ids": token_type_ids}
                logits = stock.logits(**inputs)
                loss = torch.nn.functional.cross_entropy(logits, labels)
                if self.training:
                    self.losses.append(float(loss.detach()))
                return {"loss": loss, "logits": logits}

        return Headed()


def padded_rows(split, tokenizer, max_length: int) -> list[dict]:
    """Every row of a split as token ids, padded to the greatest length."""
    rows = tokenizer(
        list(split.texts),
        None if split.pairs is None else list(split.pairs),
        truncation=True,
        max_length=max_length,
        padding="max_length",
        return_token_type_ids=True,
    )
    columns = {**rows, "labels": list(split.labels)}
    return [{name: values[i] for name, values in columns.items()} for i in range(len(split))]


def hf_trainer(study, configuration, module, train, validation, folder: str, *, in_order: bool):
    """The HF Trainer with our optimizer and schedule; rows in random order, or in the order that they have."""
    import torch
    from transformers import Trainer, TrainingArguments

    from workers.training import rate_share

    steps, rate = study.fidelity.steps, configuration.training.learning_rate
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=rate, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_share(min(step, steps - 1), steps))
    arguments = TrainingArguments(
        folder,
        max_steps=steps,
        per_device_train_batch_size=study.fidelity.batch_size,
        per_device_eval_batch_size=32,
        report_to=[],
        save_strategy="no",
        logging_strategy="no",
        disable_tqdm=True,
        seed=study.seed,
        use_cpu=True,
    )

    class InOrder(Trainer):
        def _get_train_sampler(self, *_):
            return None if in_order else super()._get_train_sampler(*_)

    return InOrder(module, arguments, train_dataset=train, eval_dataset=validation, optimizers=(optimizer, schedule))


def naive_trial(study, configuration, order=None, initial=None, dropout: bool = True) -> dict:
    """A trial as people write it: everything from the beginning, padded to the greatest length, by the HF Trainer."""
    clock = Clock()
    clock.last = STARTED
    import numpy as np
    from transformers import AutoTokenizer, Trainer  # noqa: F401 - what is imported is timed here

    from autopeft.adapters.sources import resolve
    from autopeft.tasks import TaskSpec, load_task

    clock.lap("imports")
    task = load_task(TaskSpec.from_json(study.task))
    tokenizer = AutoTokenizer.from_pretrained(resolve(study.model.source).path)
    train, validation = (
        padded_rows(part, tokenizer, study.fidelity.max_length) for part in (task.train, task.validation)
    )
    clock.lap("tokenise")
    module = Stock(study, configuration, len(task.label_names), initial).module()
    if not dropout:
        # the attention asks its module's own probability, not a Dropout module
        module.model.eval()
        module.model.train = lambda mode=True: module.model  # the Trainer's train() would wake it again
    if order is not None:
        train = [train[row] for row in order.flatten()]
    clock.lap("load")
    with tempfile.TemporaryDirectory() as folder:
        trainer = hf_trainer(study, configuration, module, train, validation, folder, in_order=order is not None)
        trainer.train()
        clock.lap("train")
        found = trainer.predict(validation)
        clock.lap("evaluate")
    accuracy = float(np.mean(found.predictions.argmax(-1) == found.label_ids))
    loss = found.metrics["test_loss"]
    return {"accuracy": accuracy, "loss": loss, "losses": module.losses, "parts": clock.parts}


def honest_trial(study, configuration, resident, order, initial=None) -> dict:
    """HF + peft at their best: batches of like length, scoring sorted by length, evaluation mode, one process."""
    import torch

    from workers.batches import scoring_batches
    from workers.training import rate_share

    clock, device = Clock(), torch.device("cpu")
    stock = Stock(study, configuration, len(resident.task.label_names), initial)
    stock.model.eval()
    trained = [p for p in [*stock.model.parameters(), *stock.head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=configuration.training.learning_rate, weight_decay=0.01)
    clock.lap("load")
    losses = []
    for step, rows in enumerate(order):
        optimizer.param_groups[0]["lr"] = configuration.training.learning_rate * rate_share(step, len(order))
        inputs, labels = resident.train.batch(rows, device)
        loss = torch.nn.functional.cross_entropy(stock.logits(**inputs), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
    clock.lap("train")
    right, loss = 0, 0.0
    with torch.inference_mode():
        for rows in scoring_batches(resident.validation.lengths, 32):
            inputs, labels = resident.validation.batch(rows, device)
            logits = stock.logits(**inputs)
            right += int((logits.argmax(-1) == labels).sum())
            loss += float(torch.nn.functional.cross_entropy(logits, labels, reduction="sum"))
    clock.lap("evaluate")
    count = len(resident.validation)
    return {"accuracy": right / count, "loss": loss / count, "losses": losses, "parts": clock.parts}
