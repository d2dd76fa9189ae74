"""Role maps: which module of a backbone plays which part.

A path is matched at the end of a module's path, so ``BertModel`` and ``BertForSequenceClassification`` have one map. The
first ``*`` is the number of a layer, another one any number. Alternatives stand beside ``|``. A value ``path:rows`` names a
third of a fused layer's rows: ``query``, ``key`` or ``value``.
"""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["FAMILIES", "HEADS"]

_BERT = {
    "attention": "encoder.layer.*.attention.self",
    "attention.query": "encoder.layer.*.attention.self.query",
    "attention.key": "encoder.layer.*.attention.self.key",
    "attention.value": "encoder.layer.*.attention.self.value",
    "attention.out": "encoder.layer.*.attention.output.dense",
    "ffn.up": "encoder.layer.*.intermediate.dense",
    "ffn.activation": "encoder.layer.*.intermediate.intermediate_act_fn",
    "ffn.down": "encoder.layer.*.output.dense",
    "norm.attention": "encoder.layer.*.attention.output.LayerNorm",
    "norm.ffn": "encoder.layer.*.output.LayerNorm",
    "norm.embeddings": "embeddings.LayerNorm",
    "embeddings": "embeddings",
    "encoder": "encoder",
    "cross": "encoder.layer.*.crossattention.self",
    "cross.query": "encoder.layer.*.crossattention.self.query",
    "cross.key": "encoder.layer.*.crossattention.self.key",
    "cross.value": "encoder.layer.*.crossattention.self.value",
    "cross.out": "encoder.layer.*.crossattention.output.dense",
    "norm.cross": "encoder.layer.*.crossattention.output.LayerNorm",
}

_LLAMA = {
    "attention": "layers.*.self_attn",
    "attention.query": "layers.*.self_attn.q_proj",
    "attention.key": "layers.*.self_attn.k_proj",
    "attention.value": "layers.*.self_attn.v_proj",
    "attention.out": "layers.*.self_attn.o_proj",
    "ffn.gate": "layers.*.mlp.gate_proj",
    "ffn.up": "layers.*.mlp.up_proj",
    "ffn.activation": "layers.*.mlp.act_fn",
    "ffn.down": "layers.*.mlp.down_proj",
    "norm.attention": "layers.*.input_layernorm",
    "norm.ffn": "layers.*.post_attention_layernorm",
    "norm.final": "norm",
    "embeddings": "embed_tokens",
}

_BART = {
    "attention": "layers.*.self_attn",
    "attention.query": "layers.*.self_attn.q_proj",
    "attention.key": "layers.*.self_attn.k_proj",
    "attention.value": "layers.*.self_attn.v_proj",
    "attention.out": "layers.*.self_attn.out_proj",
    "cross": "layers.*.encoder_attn",
    "cross.query": "layers.*.encoder_attn.q_proj",
    "cross.key": "layers.*.encoder_attn.k_proj",
    "cross.value": "layers.*.encoder_attn.v_proj",
    "cross.out": "layers.*.encoder_attn.out_proj",
    "ffn.up": "layers.*.fc1",
    "ffn.activation": "layers.*.activation_fn",
    "ffn.down": "layers.*.fc2",
    "norm.attention": "layers.*.self_attn_layer_norm",
    "norm.cross": "layers.*.encoder_attn_layer_norm",
    "norm.ffn": "layers.*.final_layer_norm",
    "norm.embeddings": "layernorm_embedding",
    "embeddings": "embed_tokens",
    "positions": "embed_positions",
}

# Family (transformers' ``model_type``) -> role -> path.
FAMILIES: dict[str, Mapping[str, str]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "deberta": {
        **{
            role: path
            for role, path in _BERT.items()
            if role not in ("attention.query", "attention.key", "attention.value")
        },
        "attention.qkv": "encoder.layer.*.attention.self.in_proj",
    },
    "deberta-v2": {
        **_BERT,
        "attention.query": "encoder.layer.*.attention.self.query_proj",
        "attention.key": "encoder.layer.*.attention.self.key_proj",
        "attention.value": "encoder.layer.*.attention.self.value_proj",
    },
    "gpt2": {
        "attention": "h.*.attn",
        "attention.qkv": "h.*.attn.c_attn",
        "attention.query": "h.*.attn.c_attn:query",
        "attention.key": "h.*.attn.c_attn:key",
        "attention.value": "h.*.attn.c_attn:value",
        "attention.out": "h.*.attn.c_proj",
        "cross.query": "h.*.crossattention.q_attn",
        "cross.keys_and_values": "h.*.crossattention.c_attn",
        "cross.out": "h.*.crossattention.c_proj",
        "ffn.up": "h.*.mlp.c_fc",
        "ffn.activation": "h.*.mlp.act",
        "ffn.down": "h.*.mlp.c_proj",
        "norm.attention": "h.*.ln_1",
        "norm.ffn": "h.*.ln_2",
        "norm.final": "ln_f",
        "embeddings": "wte",
        "positions": "wpe",
    },
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "t5": {
        "attention": "block.*.layer.*.SelfAttention",
        "attention.query": "block.*.layer.*.SelfAttention.q",
        "attention.key": "block.*.layer.*.SelfAttention.k",
        "attention.value": "block.*.layer.*.SelfAttention.v",
        "attention.out": "block.*.layer.*.SelfAttention.o",
        "cross": "block.*.layer.*.EncDecAttention",
        "cross.query": "block.*.layer.*.EncDecAttention.q",
        "cross.key": "block.*.layer.*.EncDecAttention.k",
        "cross.value": "block.*.layer.*.EncDecAttention.v",
        "cross.out": "block.*.layer.*.EncDecAttention.o",
        "ffn.gate": "block.*.layer.*.DenseReluDense.wi_0",
        "ffn.up": "block.*.layer.*.DenseReluDense.wi|block.*.layer.*.DenseReluDense.wi_1",
        "ffn.activation": "block.*.layer.*.DenseReluDense.act",
        "ffn.down": "block.*.layer.*.DenseReluDense.wo",
        "norm.layer": "block.*.layer.*.layer_norm",
        "norm.final": "final_layer_norm",
        "embeddings": "embed_tokens",
    },
    "bart": _BART,
    "mbart": _BART,
    "vit": {
        "attention": "layers.*.attention",
        "attention.query": "layers.*.attention.q_proj",
        "attention.key": "layers.*.attention.k_proj",
        "attention.value": "layers.*.attention.v_proj",
        "attention.out": "layers.*.attention.o_proj",
        "ffn.up": "layers.*.mlp.fc1",
        "ffn.activation": "layers.*.mlp.activation_fn",
        "ffn.down": "layers.*.mlp.fc2",
        "norm.attention": "layers.*.layernorm_before",
        "norm.ffn": "layers.*.layernorm_after",
        "norm.final": "layernorm",
        "embeddings": "embeddings",
    },
    "lorentz": {
        "attention": "stack.layers.*.attention",
        "attention.query": "stack.layers.*.attention.query",
        "attention.key": "stack.layers.*.attention.key",
        "attention.value": "stack.layers.*.attention.value",
        "attention.out": "stack.layers.*.attention.out",
        "cross": "stack.layers.*.cross_attention",
        "cross.query": "stack.layers.*.cross_attention.query",
        "cross.key": "stack.layers.*.cross_attention.key",
        "cross.value": "stack.layers.*.cross_attention.value",
        "cross.out": "stack.layers.*.cross_attention.out",
        "ffn.up": "stack.layers.*.up",
        "ffn.activation": "stack.layers.*.down.activation",
        "ffn.down": "stack.layers.*.down",
        "norm.layer": "stack.layers.*.norms.*",
        "norm.final": "stack.norm",
        "norm.embeddings": "embeddings.norm",
        "embeddings": "embeddings",
        "encoder": "encoder",
    },
}

# Modules that belong to a task and not to the backbone; trained and stored beside a delta.
HEADS = ("classifier", "score", "qa_outputs", "classification_head", "head")
