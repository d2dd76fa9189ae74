"""The Auto classes of transformers."""

from __future__ import annotations

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForMaskedLM,
    AutoModelForSeq2SeqLM,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
)

from .classification import LorentzForSequenceClassification, LorentzForTokenClassification
from .configuration import LorentzConfig
from .generation import LorentzForConditionalGeneration
from .language import LorentzForMaskedLM
from .model import LorentzModel

__all__ = ["register"]


def register() -> None:
    """Let ``AutoConfig`` and the ``AutoModel`` family know ``model_type="lorentz"``; a second call changes nothing."""
    AutoConfig.register(LorentzConfig.model_type, LorentzConfig, exist_ok=True)
    for auto, model in (
        (AutoModel, LorentzModel),
        (AutoModelForMaskedLM, LorentzForMaskedLM),
        (AutoModelForSeq2SeqLM, LorentzForConditionalGeneration),
        (AutoModelForSequenceClassification, LorentzForSequenceClassification),
        (AutoModelForTokenClassification, LorentzForTokenClassification),
    ):
        auto.register(LorentzConfig, model, exist_ok=True)
