"""What hyrel and peft both have, and how its configuration and tensors are read and written."""

from __future__ import annotations

from ..errors import DeltaError
from .convert import Converter, Entry, into
from .layers import IA3S, LN_TUNING, LOKR, LORA
from .tokens import PREFIX_TUNING, PROMPT_TUNING

__all__ = ["CONVERTERS", "Converter", "Entry", "converter_of", "into"]

CONVERTERS = (LORA, IA3S, LOKR, LN_TUNING, PROMPT_TUNING, PREFIX_TUNING)


def converter_of(kind: str) -> Converter:
    """The converter of peft's name.

    Raises
    ------
    DeltaError : there is none; names those that are.
    """
    wanted = "PROMPT_TUNING" if kind == "P_TUNING" else kind  # peft stores what the network made
    for converter in CONVERTERS:
        if converter.kind == wanted:
            return converter
    raise DeltaError(f"peft_type={kind!r} is not supported, only {', '.join(c.kind for c in CONVERTERS)} and P_TUNING")
