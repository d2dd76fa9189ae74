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

# What GPT-2 and GPT-Neo have in common.
_GPT = {
    "ffn.up": "h.*.mlp.c_fc",
    "ffn.activation": "h.*.mlp.act",
    "ffn.down": "h.*.mlp.c_proj",
    "norm.attention": "h.*.ln_1",
    "norm.ffn": "h.*.ln_2",
    "norm.final": "ln_f",
    "embeddings": "wte",
    "positions": "wpe",
}

_LAST_NORMS = {"norm.final": "encoder.layer_norm|decoder.layer_norm"}
_QK_NORMS = {"norm.query": "layers.*.self_attn.q_norm", "norm.key": "layers.*.self_attn.k_norm"}

_DISTILBERT = {
    "attention": "transformer.layer.*.attention",
    "attention.query": "transformer.layer.*.attention.q_lin",
    "attention.key": "transformer.layer.*.attention.k_lin",
    "attention.value": "transformer.layer.*.attention.v_lin",
    "attention.out": "transformer.layer.*.attention.out_lin",
    "ffn.up": "transformer.layer.*.ffn.lin1",
    "ffn.activation": "transformer.layer.*.ffn.activation",
    "ffn.down": "transformer.layer.*.ffn.lin2",
    "norm.attention": "transformer.layer.*.sa_layer_norm",
    "norm.ffn": "transformer.layer.*.output_layer_norm",
    "norm.embeddings": "embeddings.LayerNorm",
    "embeddings": "embeddings",
    "encoder": "transformer",
}

# The layers of a group share their weights, so a part in one acts in all.
_ALBERT = {
    "attention": "encoder.albert_layer_groups.*.albert_layers.*.attention",
    "attention.query": "encoder.albert_layer_groups.*.albert_layers.*.attention.query",
    "attention.key": "encoder.albert_layer_groups.*.albert_layers.*.attention.key",
    "attention.value": "encoder.albert_layer_groups.*.albert_layers.*.attention.value",
    "attention.out": "encoder.albert_layer_groups.*.albert_layers.*.attention.dense",
    "ffn.up": "encoder.albert_layer_groups.*.albert_layers.*.ffn",
    "ffn.activation": "encoder.albert_layer_groups.*.albert_layers.*.activation",
    "ffn.down": "encoder.albert_layer_groups.*.albert_layers.*.ffn_output",
    "norm.attention": "encoder.albert_layer_groups.*.albert_layers.*.attention.LayerNorm",
    "norm.ffn": "encoder.albert_layer_groups.*.albert_layers.*.full_layer_layer_norm",
    "norm.embeddings": "embeddings.LayerNorm",
}

_MODERNBERT = {
    "attention": "layers.*.attn",
    "attention.qkv": "layers.*.attn.Wqkv",
    "attention.query": "layers.*.attn.Wqkv:query",
    "attention.key": "layers.*.attn.Wqkv:key",
    "attention.value": "layers.*.attn.Wqkv:value",
    "attention.out": "layers.*.attn.Wo",
    "ffn.up": "layers.*.mlp.Wi",  # with the gate, whose rows are the second half
    "ffn.activation": "layers.*.mlp.act",
    "ffn.down": "layers.*.mlp.Wo",
    "norm.attention": "layers.*.attn_norm",
    "norm.ffn": "layers.*.mlp_norm",
    "norm.final": "final_norm",
    "norm.embeddings": "embeddings.norm",
}

_GEMMA2 = {
    **_LLAMA,
    "norm.ffn": "layers.*.pre_feedforward_layernorm",
    "norm.attention_out": "layers.*.post_attention_layernorm",
    "norm.ffn_out": "layers.*.post_feedforward_layernorm",
}

# Keys, queries and values of each head stand together in one layer, so no third of its rows is the queries.
_NEOX = {
    "attention": "layers.*.attention",
    "attention.qkv": "layers.*.attention.query_key_value",
    "attention.out": "layers.*.attention.dense",
    "ffn.up": "layers.*.mlp.dense_h_to_4h",
    "ffn.activation": "layers.*.mlp.act",
    "ffn.down": "layers.*.mlp.dense_4h_to_h",
    "norm.attention": "layers.*.input_layernorm",
    "norm.ffn": "layers.*.post_attention_layernorm",
    "norm.final": "final_layer_norm",
    "embeddings": "embed_in",
}

_BLOOM = {
    "attention": "h.*.self_attention",
    "attention.qkv": "h.*.self_attention.query_key_value",
    "attention.out": "h.*.self_attention.dense",
    "ffn.up": "h.*.mlp.dense_h_to_4h",
    "ffn.activation": "h.*.mlp.gelu_impl",
    "ffn.down": "h.*.mlp.dense_4h_to_h",
    "norm.attention": "h.*.input_layernorm",
    "norm.ffn": "h.*.post_attention_layernorm",
    "norm.final": "ln_f",
    "norm.embeddings": "word_embeddings_layernorm",
    "embeddings": "word_embeddings",
}

_VIT = {
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
}


def _without(roles: Mapping[str, str], *names: str) -> dict[str, str]:
    return {role: path for role, path in roles.items() if role not in names}


# Family (transformers' ``model_type``) -> role -> path.
FAMILIES: dict[str, Mapping[str, str]] = {
    "bert": _BERT,
    "roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "xlm-roberta": _BERT,
    "distilbert": _DISTILBERT,
    "albert": _ALBERT,
    "mpnet": {
        **_without(_BERT, *(role for role in _BERT if "cross" in role)),
        "attention": "encoder.layer.*.attention.attn",
        "attention.query": "encoder.layer.*.attention.attn.q",
        "attention.key": "encoder.layer.*.attention.attn.k",
        "attention.value": "encoder.layer.*.attention.attn.v",
        "attention.out": "encoder.layer.*.attention.attn.o",
        "norm.attention": "encoder.layer.*.attention.LayerNorm",
    },
    "modernbert": _MODERNBERT,
    "deberta": {
        **_without(_BERT, "attention.query", "attention.key", "attention.value"),
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
        **_GPT,
    },
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "gemma": _LLAMA,
    "gemma2": _GEMMA2,
    "gemma3_text": {**_GEMMA2, **_QK_NORMS},
    "granite": _LLAMA,
    "olmo": _LLAMA,
    "smollm3": _LLAMA,
    "stablelm": _LLAMA,
    "mixtral": _without(_LLAMA, "ffn.gate", "ffn.up", "ffn.activation", "ffn.down"),  # its experts are no linear layers
    "phi": {
        **_without(_LLAMA, "ffn.gate", "norm.ffn"),
        "attention.out": "layers.*.self_attn.dense",
        "ffn.up": "layers.*.mlp.fc1",
        "ffn.activation": "layers.*.mlp.activation_fn",
        "ffn.down": "layers.*.mlp.fc2",
        "norm.final": "final_layernorm",
    },
    "phi3": {
        **_without(_LLAMA, "attention.query", "attention.key", "attention.value", "ffn.gate"),
        "attention.qkv": "layers.*.self_attn.qkv_proj",
        "ffn.up": "layers.*.mlp.gate_up_proj",
        "ffn.activation": "layers.*.mlp.activation_fn",
    },
    "starcoder2": {
        **_without(_LLAMA, "ffn.gate"),
        "ffn.up": "layers.*.mlp.c_fc",
        "ffn.activation": "layers.*.mlp.act",
        "ffn.down": "layers.*.mlp.c_proj",
    },
    "gpt_neox": _NEOX,
    "gpt_neo": {
        "attention": "h.*.attn.attention",
        "attention.query": "h.*.attn.attention.q_proj",
        "attention.key": "h.*.attn.attention.k_proj",
        "attention.value": "h.*.attn.attention.v_proj",
        "attention.out": "h.*.attn.attention.out_proj",
        **_GPT,
    },
    "gptj": {
        "attention": "h.*.attn",
        "attention.query": "h.*.attn.q_proj",
        "attention.key": "h.*.attn.k_proj",
        "attention.value": "h.*.attn.v_proj",
        "attention.out": "h.*.attn.out_proj",
        "ffn.up": "h.*.mlp.fc_in",
        "ffn.activation": "h.*.mlp.act",
        "ffn.down": "h.*.mlp.fc_out",
        "norm.attention": "h.*.ln_1",
        "norm.final": "ln_f",
        "embeddings": "wte",
    },
    "bloom": _BLOOM,
    "falcon": {
        **_without(_BLOOM, "norm.embeddings"),
        "ffn.activation": "h.*.mlp.act",
        "norm.attention": "h.*.input_layernorm|h.*.ln_attn",
        "norm.ffn": "h.*.post_attention_layernorm|h.*.ln_mlp",
    },
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_QK_NORMS},
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
    "mbart": {**_BART, **_LAST_NORMS},
    "opt": {
        **_without(_BART, "norm.embeddings", *(role for role in _BART if "cross" in role)),
        "norm.final": "decoder.final_layer_norm",
    },
    "whisper": {**_without(_BART, "norm.embeddings"), **_LAST_NORMS},
    "vit": _VIT,
    "deit": _without(_VIT, "embeddings"),
    "dinov2": {
        **_without(_VIT, "embeddings"),
        **{
            role: path.replace("layers.", "encoder.layer.")
            for role, path in _VIT.items()
            if role.startswith(("attention", "ffn"))
        },
        "norm.attention": "encoder.layer.*.norm1",
        "norm.ffn": "encoder.layer.*.norm2",
    },
    "clip_text_model": {
        **_without(_BART, "embeddings", "positions", "norm.embeddings", *(role for role in _BART if "cross" in role)),
        "ffn.up": "layers.*.mlp.fc1",
        "ffn.activation": "layers.*.mlp.activation_fn",
        "ffn.down": "layers.*.mlp.fc2",
        "norm.attention": "layers.*.layer_norm1",
        "norm.ffn": "layers.*.layer_norm2",
        "norm.final": "final_layer_norm",
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
HEADS = (
    "classifier",
    "pre_classifier",
    "cls_classifier",
    "distillation_classifier",
    "score",
    "qa_outputs",
    "classification_head",
    "head",
)
