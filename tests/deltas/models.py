"""Tiny random backbones: 2 layers, 32 wide."""

from __future__ import annotations

from typing import Any

import torch
import transformers as tf
from torch import Tensor

from lorentz.hf import LorentzConfig, LorentzForConditionalGeneration, LorentzForSequenceClassification

SIZE = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 0, "eos_token_id": 1}
VOCABULARY = 80


def config(family: str, **more: Any) -> Any:
    if family in ("bert", "roberta"):
        cls = tf.BertConfig if family == "bert" else tf.RobertaConfig
        return cls(vocab_size=VOCABULARY, max_position_embeddings=64, type_vocab_size=2, **SIZE, **more)
    if family == "gpt2":
        return tf.GPT2Config(vocab_size=VOCABULARY, pad_token_id=2, **GPT2, **more)
    if family in ("llama", "qwen2"):
        cls = tf.LlamaConfig if family == "llama" else tf.Qwen2Config
        return cls(
            vocab_size=VOCABULARY, num_key_value_heads=2, pad_token_id=0, max_position_embeddings=64, **SIZE, **more
        )
    if family == "t5":
        return tf.T5Config(
            vocab_size=VOCABULARY,
            d_model=32,
            d_kv=8,
            d_ff=64,
            num_layers=2,
            num_heads=4,
            decoder_start_token_id=0,
            **more,
        )
    if family == "bart":
        return tf.BartConfig(
            vocab_size=VOCABULARY,
            d_model=32,
            encoder_layers=2,
            decoder_layers=2,
            encoder_attention_heads=4,
            decoder_attention_heads=4,
            encoder_ffn_dim=64,
            decoder_ffn_dim=64,
            max_position_embeddings=64,
            **more,
        )
    if family == "vit":
        return tf.ViTConfig(image_size=16, patch_size=4, **SIZE, **more)
    if family == "lorentz":
        sizes = {**SIZE, "hidden_size": 33, "intermediate_size": 65}
        return LorentzConfig(vocab_size=VOCABULARY, max_position_embeddings=64, **sizes, **more)
    raise KeyError(family)


CLASSES: dict[str, Any] = {
    "bert": tf.BertForSequenceClassification,
    "roberta": tf.RobertaForSequenceClassification,
    "gpt2": tf.GPT2LMHeadModel,
    "llama": tf.LlamaForCausalLM,
    "qwen2": tf.Qwen2ForCausalLM,
    "t5": tf.T5ForConditionalGeneration,
    "bart": tf.BartForConditionalGeneration,
    "vit": tf.ViTForImageClassification,
    "lorentz": LorentzForSequenceClassification,
    "lorentz-seq2seq": LorentzForConditionalGeneration,
}


def build(family: str, cls: Any = None, *, seed: int = 0, **more: Any) -> Any:
    """A model in eval mode, with weights large enough that attention is not uniform."""
    torch.manual_seed(seed)
    model = (cls or CLASSES[family])(config(family.removesuffix("-seq2seq"), **more)).eval()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lorentz" not in family and p.ndim > 1:
                p.normal_(0, 0.2)
            elif "lorentz" not in family and name.endswith("bias"):
                p.normal_(0, 0.1)
    return model


def batch(family: str, *, length: int = 7, padded: bool = False, rows: int = 2) -> dict[str, Tensor]:
    torch.manual_seed(5)
    if family == "vit":
        return {"pixel_values": torch.randn(rows, 3, 16, 16)}
    found = {"input_ids": torch.randint(5, VOCABULARY, (rows, length))}
    found["attention_mask"] = torch.ones(rows, length, dtype=torch.long)
    if padded:
        found["attention_mask"][1, -2:] = 0
    if family in ("t5", "bart", "lorentz-seq2seq"):
        found["decoder_input_ids"] = torch.randint(5, VOCABULARY, (rows, 4))
    return found
