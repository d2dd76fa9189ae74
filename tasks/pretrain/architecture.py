"""From the options of an encoder to the configuration of a model."""

from __future__ import annotations

from typing import Any

from lorentz.hf import LorentzConfig

from .config import EncoderConfig

__all__ = ["lorentz_config"]


def lorentz_config(model: EncoderConfig, tokenizer: Any, **options: Any) -> LorentzConfig:
    """Sizes and tokens of a model without token types; `options` are further fields of the configuration."""
    return LorentzConfig(
        vocab_size=len(tokenizer),
        hidden_size=model.hidden_size,
        num_hidden_layers=model.layers,
        num_attention_heads=model.heads,
        hidden_dropout_prob=model.dropout,
        attention_probs_dropout_prob=model.dropout,
        position_embedding_type=model.positions,
        type_vocab_size=0,
        geometry=model.geometry,
        k=model.k,
        learnable_k=model.learnable_k,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.cls_token_id,
        eos_token_id=tokenizer.sep_token_id,
        **options,
    )
