"""A backbone with a head: mean pooling and a linear layer, the family's stock head, or its own language-model head.

Everything pretrained is frozen, the pooler too, and in evaluation mode for good: only newly initialised head weights
train. A language model brings its head along, so none of it is new. Adapters are put into ``Classifier.model`` by
``autopeft.adapters.plan``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.adapters.calibration import TrainingRows
from autopeft.adapters.parts import inserted_in
from autopeft.adapters.plan import adapter_parameters, apply, remove
from autopeft.adapters.products import quicken
from autopeft.adapters.replay import ENTERING, replaying
from autopeft.adapters.saving import HEAD_FILE, assign, load_adapter, read_tensors, write_tensors
from autopeft.adapters.unfreezing import Unfrozen
from search_spaces.configuration import Configuration

__all__ = ["HEAD_FILE", "Classifier", "mean_over_tokens"]


def mean_over_tokens(hidden: Tensor, mask: Tensor) -> Tensor:
    """Mean of the hidden states over tokens that are no padding, in float32.

    Args:
        hidden: Shape [rows, tokens, width].
        mask: Shape [rows, tokens], 1 for a token and 0 for padding.
    """
    weights = mask.unsqueeze(-1).float()
    return (hidden.float() * weights).sum(1) / weights.sum(1).clamp(min=1)


class Classifier(nn.Module):
    """A frozen backbone with a trainable head.

    Args:
        model: Headless for mean pooling; the stock model for the kind of task otherwise.
        output_count: Width of a mean-pooling head: number of classes, or 1 for regression.
        new: For a stock head, the names of its newly initialised parameters; None for mean pooling.

    Attributes:
        precision: Of the arithmetic, as ``autopeft.regime.Regime`` names it.
    """

    precision: str | None = None

    def __init__(self, model: PreTrainedModel, output_count: int, new: Collection[str] | None) -> None:
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(_width(model), output_count) if new is None else None
        model.requires_grad_(False)
        if self.classifier is not None:
            self._head = {f"classifier.{name}": p for name, p in self.classifier.named_parameters()}
        else:
            self._head = {name: p for name, p in model.named_parameters() if name in set(new or ())}
        self.first_layer = 0
        self._unfrozen: Unfrozen | None = None
        self.eval()

    @property
    def has_stock_head(self) -> bool:
        """Whether the head is the family's own."""
        return self.classifier is None

    def forward(self, batch: Mapping[str, Tensor], last: int = 0) -> Tensor:
        """Logits in float32, of shape [rows, outputs]; of a language model [rows, tokens, vocabulary].

        Args:
            batch: ``input_ids``, ``attention_mask`` and, where the family has them, ``token_type_ids``; or
                ``pixel_values``. With the states that enter the layer ``first_layer`` (``ENTERING``), what lies below
                it is not computed.
            last: Of a language model, how many tokens at the end get logits; 0 for all.
        """
        inputs: dict[str, Any] = {name: tensor for name, tensor in batch.items() if name != ENTERING}
        if last:
            inputs["logits_to_keep"] = last
        if (states := batch.get(ENTERING)) is None:
            answer = self.model(**inputs)
        else:
            with replaying(self.model, self.first_layer, states):
                answer = self.model(**inputs)
        if self.classifier is None:
            logits: Tensor = answer.logits
        else:
            logits = self.classifier(mean_over_tokens(answer.last_hidden_state, batch["attention_mask"]))
        return logits.float()

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The newly initialised head weights: ``classifier.…``, or their names in the stock model."""
        return dict(self._head)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """All that a trial trains: adapters and head; every weight in full fine-tuning."""
        whole = {} if self._unfrozen is None else self._unfrozen.trained
        return {**adapter_parameters(self.model), **whole, **self._head}

    def reached_parameters(self) -> dict[str, nn.Parameter]:
        """Those of them that every loss is to reach: a backbone may hold weights that no output needs (a pooler)."""
        return {**adapter_parameters(self.model), **self._head}

    def adapt(self, configuration: Configuration, seed: int, rows: TrainingRows | None = None) -> None:
        """Inserts the adapters of ``configuration``, or unfreezes all; what is new and the head is drawn from ``seed``.

        Args:
            configuration: What is inserted.
            seed: Of all initial values.
            rows: Training rows, for initialisations that read some; their loss is that of the newly drawn head.

        Raises:
            ConfigurationError: If the configuration does not fit, or adapters are in the model already.
        """
        self.reset_head(seed)
        if configuration.training.backbone:
            self._unfrozen = Unfrozen.of(self.model)
        else:
            apply(self.model, configuration, seed=seed, rows=rows)
            quicken(self.model)
        self.reset_head(seed)  # a new pooler is head, lies in the backbone, and was frozen with it
        self.eval()

    def readapt(self, folder: Path) -> None:
        """Inserts the adapters and the head in ``folder``, ready to be trained on.

        Raises:
            NotFoundError: If a file is missing.
            ConfigurationError: If a file cannot be read or does not fit, or adapters are in the model already.
        """
        load_adapter(self.model, folder)
        quicken(self.model)
        self.load_head(folder)
        for parameter in self._head.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        self.eval()

    @property
    def configuration(self) -> Configuration | None:
        """What is inserted; None if nothing is."""
        inserted = inserted_in(self.model)
        return None if inserted is None else inserted.configuration

    def strip(self) -> None:
        """Takes all adapters out again; the backbone is bit-identical to what it was."""
        if self._unfrozen is not None:
            self._unfrozen.restore()
            self._unfrozen = None
        remove(self.model)

    def reset_head(self, seed: int) -> None:
        """Draws the head anew from ``seed`` and makes it trainable; the same on every device.

        Weights are normal with the backbone's own ``initializer_range``, biases zero.
        """
        generator = torch.Generator().manual_seed(seed % 2**63)
        spread = float(getattr(self.model.config, "initializer_range", 0.02))
        with torch.no_grad():
            for parameter in self._head.values():
                values = torch.zeros(parameter.shape)
                if parameter.dim() > 1:
                    values.normal_(0.0, spread, generator=generator)
                parameter.copy_(values)
                parameter.requires_grad_(True)
                parameter.grad = None

    def save_head(self, folder: Path) -> None:
        """Writes ``head.safetensors`` into ``folder``."""
        folder.mkdir(parents=True, exist_ok=True)
        write_tensors(folder / HEAD_FILE, self._head)

    def load_head(self, folder: Path) -> None:
        """Reads ``head.safetensors`` from ``folder``.

        Raises:
            NotFoundError: If it is not there.
            ConfigurationError: If it does not fit.
        """
        assign(self._head, read_tensors(folder / HEAD_FILE), folder / HEAD_FILE)


def _width(model: PreTrainedModel) -> int:
    """Width of the last hidden states; some OPT models project them down."""
    return int(getattr(model.config, "word_embed_proj_dim", None) or model.config.hidden_size)
