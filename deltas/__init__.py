"""Delta tuning (parameter-efficient tuning) on Euclidean and Lorentz backbones.

``attach`` puts a delta into a model in place, ``Handle`` is what trains, stores, merges and removes it; a method is a small
dataclass and is written once for both geometries.
"""

from .attaching import attach
from .base import Combination, Delta, Site
from .budget import fit_budget
from .check import Check, Report, check
from .errors import DeltaError
from .handle import Handle, handles
from .hosts import HOSTS, Host, Place, host_of, register_host
from .interop import from_peft, to_peft
from .linear import LinearPart
from .methods import DELTAS, register_delta
from .methods.adapter import Adapter, Pfeiffer
from .methods.bias import AdapterBias
from .methods.factored import Compacter, LowRankAdapter
from .methods.hyplora import HypLoRA
from .methods.krona import KAdaptation, KronA
from .methods.llama import LLaMAAdapter
from .methods.lokr import LoKr
from .methods.lora import LoRA
from .methods.mam import mam
from .methods.own import BitFit, FullFineTuning, HeadOnly, LNTuning
from .methods.parallel import ParallelAdapter
from .methods.prefix import PrefixTuning
from .methods.prompt import PromptTuning, PTuning
from .methods.rational import RationalActivation
from .methods.scaling import IA3
from .methods.sparse import SparseAdapter, prune
from .methods.unipelt import UniPELT
from .methods.vpt import VPT
from .plan import Plan, plan
from .spec import parse
from .storage import load, save

__all__ = [
    "DELTAS",
    "HOSTS",
    "IA3",
    "VPT",
    "Adapter",
    "AdapterBias",
    "BitFit",
    "Check",
    "Combination",
    "Compacter",
    "Delta",
    "DeltaError",
    "FullFineTuning",
    "Handle",
    "HeadOnly",
    "Host",
    "HypLoRA",
    "KAdaptation",
    "KronA",
    "LLaMAAdapter",
    "LNTuning",
    "LinearPart",
    "LoKr",
    "LoRA",
    "LowRankAdapter",
    "PTuning",
    "ParallelAdapter",
    "Pfeiffer",
    "Place",
    "Plan",
    "PrefixTuning",
    "PromptTuning",
    "RationalActivation",
    "Report",
    "Site",
    "SparseAdapter",
    "UniPELT",
    "attach",
    "check",
    "fit_budget",
    "from_peft",
    "handles",
    "host_of",
    "load",
    "mam",
    "parse",
    "plan",
    "prune",
    "register_delta",
    "register_host",
    "save",
    "to_peft",
]
