"""What autograd keeps for one method at one place until the backward pass, in elements; the methods' own arithmetic."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kept:
    """Elements kept until the backward pass, besides what the frozen part keeps.

    Attributes:
        input: Whether the place's input is kept (once, however many methods keep it).
        reads: Products that read the input; under bfloat16 autocast each keeps a copy of its own.
        per_token: Elements a token.
        per_token_wide: As many more that are float32 also under bfloat16 autocast.
        fixed: Elements whatever the batch.
        fixed_where_flowing: As many more where a gradient goes on to the place's input.
        through_weight: Whether a gradient goes through the frozen weight even where none goes on to the input.
        reads_weight: Whether the frozen weight is multiplied with element by element, so that one which is packed is
            kept unpacked.
        wide_result: Whether the result is float32 also under bfloat16 autocast.
    """

    input: bool = False
    per_token: int = 0
    fixed: int = 0
    fixed_where_flowing: int = 0
    through_weight: bool = False
    reads_weight: bool = False
    wide_result: bool = False
    per_token_wide: int = 0
    reads: int = 1
