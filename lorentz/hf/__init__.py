"""Transformers on Lorentz layers as models of Hugging Face transformers, and their flat twins.

Importing it registers the classes with ``AutoConfig`` and the ``AutoModel`` family; ``import lorentz`` does not import it.
"""

from .base import LorentzPreTrainedModel
from .classification import LorentzForSequenceClassification, LorentzForTokenClassification
from .configuration import LorentzConfig
from .generation import LorentzForConditionalGeneration
from .language import LorentzForMaskedLM
from .model import LorentzModel
from .register import register

__all__ = [
    "LorentzConfig",
    "LorentzForConditionalGeneration",
    "LorentzForMaskedLM",
    "LorentzForSequenceClassification",
    "LorentzForTokenClassification",
    "LorentzModel",
    "LorentzPreTrainedModel",
    "register",
]

register()
