"""The methods of delta tuning, one a file."""

from __future__ import annotations

from ..base import Delta
from ..errors import DeltaError
from .adapter import Adapter, Pfeiffer
from .bias import AdapterBias
from .factored import Compacter, LowRankAdapter
from .hyplora import HypLoRA
from .krona import KAdaptation, KronA
from .llama import LLaMAAdapter
from .lokr import LoKr
from .lora import LoRA
from .own import BitFit, FullFineTuning, HeadOnly, LNTuning
from .parallel import ParallelAdapter
from .prefix import PrefixTuning
from .prompt import PromptTuning, PTuning
from .rational import RationalActivation
from .scaling import IA3
from .sparse import SparseAdapter
from .unipelt import UniPELT
from .vpt import VPT

__all__ = ["DELTAS", "register_delta"]

DELTAS: dict[str, type[Delta]] = {
    cls.__name__: cls
    for cls in (
        FullFineTuning,
        HeadOnly,
        LoRA,
        HypLoRA,
        KronA,
        KAdaptation,
        LoKr,
        IA3,
        Adapter,
        Pfeiffer,
        ParallelAdapter,
        LowRankAdapter,
        Compacter,
        SparseAdapter,
        AdapterBias,
        BitFit,
        LNTuning,
        RationalActivation,
        PrefixTuning,
        PromptTuning,
        PTuning,
        VPT,
        LLaMAAdapter,
        UniPELT,
    )
}


def register_delta(cls: type[Delta]) -> type[Delta]:
    """Make a method of yours known by the name of its class; a decorator.

    Raises
    ------
    DeltaError : the name is taken.
    """
    if DELTAS.get(cls.__name__, cls) is not cls:
        raise DeltaError(f"a method {cls.__name__!r} exists; give yours another name")
    DELTAS[cls.__name__] = cls
    return cls
