"""Delta tuning (parameter-efficient tuning) on Euclidean and Lorentz backbones.

``attach`` puts a delta into a model in place, ``Handle`` is what trains, stores, merges and removes it; a method is a small
dataclass and is written once for both geometries.
"""

from .base import Combination, Delta, Site
from .budget import fit_budget
from .check import Check, Report, check
from .errors import DeltaError
from .handle import Handle, attach, handles
from .hosts import HOSTS, Host, host_of, register_host
from .methods import DELTAS, register_delta
from .methods.adapter import Adapter, Pfeiffer
from .methods.lora import LoRA
from .methods.own import BitFit, FullFineTuning, HeadOnly, LNTuning
from .methods.prefix import PrefixTuning
from .plan import Plan, plan
from .spec import parse
from .storage import load, save

__all__ = [
    "DELTAS",
    "HOSTS",
    "Adapter",
    "BitFit",
    "Check",
    "Combination",
    "Delta",
    "DeltaError",
    "FullFineTuning",
    "Handle",
    "HeadOnly",
    "Host",
    "LNTuning",
    "LoRA",
    "Pfeiffer",
    "Plan",
    "PrefixTuning",
    "Report",
    "Site",
    "attach",
    "check",
    "fit_budget",
    "handles",
    "host_of",
    "load",
    "parse",
    "plan",
    "register_delta",
    "register_host",
    "save",
]
