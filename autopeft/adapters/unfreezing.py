"""Full fine-tuning on a resident backbone: every pretrained weight trains, and afterwards is what it was, to the bit.

A copy of all weights is kept in host memory meanwhile, so a model takes twice its size there.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from autopeft.errors import EvaluationError


@dataclass(frozen=True)
class Unfrozen:
    """A model whose weights are being trained.

    Attributes:
        trained: Its parameters by name, a tied one once.
        before: What they were, in host memory.
    """

    trained: dict[str, nn.Parameter]
    before: dict[str, Tensor]

    @classmethod
    def of(cls, model: nn.Module) -> Unfrozen:
        """Makes every parameter of ``model`` trainable and remembers it.

        Raises:
            EvaluationError: If some are packed into whole numbers, which nothing can train.
        """
        trained = dict(model.named_parameters())
        packed = [name for name, parameter in trained.items() if not parameter.is_floating_point()]
        if packed:
            raise EvaluationError(
                f"full fine-tuning of quantised weights ({packed[0]} and {len(packed) - 1} more): nothing can train "
                "them; compare in a study without --load-in"
            )
        before = {name: parameter.detach().to("cpu", copy=True) for name, parameter in trained.items()}
        for parameter in trained.values():
            parameter.requires_grad_(True)
            parameter.grad = None
        return cls(trained, before)

    def restore(self) -> None:
        """Puts every weight back to what it was, and freezes it."""
        with torch.no_grad():
            for name, parameter in self.trained.items():
                parameter.copy_(self.before[name])
                parameter.requires_grad_(False)
                parameter.grad = None
