"""Sequences that are longer than what a module was built for."""

from __future__ import annotations


def check_length(length: int, longest: int) -> None:
    """Refuse sequences of more than ``longest`` positions.

    Raises:
        ValueError: With both lengths and what to change.
    """
    if length > longest:
        raise ValueError(
            f"the model was built for sequences of at most {longest} items, got {length}; "
            f"raise the model's max_length or lower the training's"
        )
