"""A backbone with a head that classifies or regresses: mean pooling and a linear layer, or the family's stock head.

Everything pretrained is frozen, the pooler too, and in evaluation mode for good: only newly initialised head weights
train. Adapters are put into ``Classifier.model`` by ``autopeft.adapters.plan``.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from autopeft.adapters.plan import adapter_parameters, apply, remove
from autopeft.adapters.saving import HEAD_FILE, assign, read_tensors, write_tensors
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
        model: Headless for mean pooling; the stock model for sequence classification otherwise.
        output_count: Width of the output: number of classes, or 1 for regression.
        new: For a stock head, the names of its newly initialised parameters; None for mean pooling.
    """

    def __init__(self, model: PreTrainedModel, output_count: int, new: Collection[str] | None) -> None:
        super().__init__()
        self.model = model
        self.classifier = nn.Linear(model.config.hidden_size, output_count) if new is None else None
        model.requires_grad_(False)
        if self.classifier is not None:
            self._head = {f"classifier.{name}": p for name, p in self.classifier.named_parameters()}
        else:
            self._head = {name: p for name, p in model.named_parameters() if name in set(new or ())}
        self.eval()

    @property
    def has_stock_head(self) -> bool:
        """Whether the head is the family's own."""
        return self.classifier is None

    def forward(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Logits of shape [rows, outputs], in float32.

        Args:
            batch: ``input_ids``, ``attention_mask`` and, where the family has them, ``token_type_ids``.
        """
        answer = self.model(**batch)
        if self.classifier is None:
            logits: Tensor = answer.logits
        else:
            logits = self.classifier(mean_over_tokens(answer.last_hidden_state, batch["attention_mask"]))
        return logits.float()

    def head_parameters(self) -> dict[str, nn.Parameter]:
        """The newly initialised head weights: ``classifier.…``, or their names in the stock model."""
        return dict(self._head)

    def trained_parameters(self) -> dict[str, nn.Parameter]:
        """All that a trial trains: adapters and head."""
        return {**adapter_parameters(self.model), **self._head}

    def adapt(self, configuration: Configuration, seed: int) -> None:
        """Inserts the adapters of ``configuration`` and draws them and the head anew from ``seed``.

        Raises:
            ConfigurationError: If the configuration does not fit, or adapters are in the model already.
        """
        apply(self.model, configuration, seed=seed)
        self.reset_head(seed)
        self.eval()

    def strip(self) -> None:
        """Takes all adapters out again; the backbone is bit-identical to what it was."""
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
