"""The backbone: token points, encoder and decoder, written once for both geometries."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPastAndCrossAttentions, Seq2SeqModelOutput

from ..flat import Euclidean
from ..geometry import geometry_of
from ..manifold import Lorentz
from ..stacks import LorentzTransformerDecoder, LorentzTransformerEncoder
from .base import LorentzPreTrainedModel
from .cache import CACHE, layer_caches, new_cache, one_cache
from .configuration import LorentzConfig
from .conversion import convert
from .embedding import TokenEmbedding
from .masks import seen_keys, split_mask

__all__ = ["LorentzDecoder", "LorentzEncoder", "LorentzModel"]


def _stack(config: LorentzConfig) -> dict[str, Any]:
    """Options of the layers."""
    return {
        "norm": config.norm,
        "eps": config.layer_norm_eps,
        "dropout": config.hidden_dropout_prob,
        "attention_dropout": config.attention_probs_dropout_prob,
        "activation": ACT2FN[config.hidden_act],
        "variant": config.linear_variant,
        "attention_logits": config.attention_logits,
        "rotary_base": 10000.0 if config.position_embedding_type == "rotary" else None,
    }


def finish(output: Any, return_dict: bool | None, config: LorentzConfig) -> Any:
    """The output, or a tuple of what it holds."""
    wanted = config.return_dict if return_dict is None else return_dict
    return output if wanted else output.to_tuple()


class _Half(nn.Module):
    """What encoder and decoder share: the tensors that transformers users ask for."""

    config: LorentzConfig

    def _seen(self, hidden: bool | None, attentions: bool | None) -> tuple[dict[str, list[Tensor]] | None, bool, bool]:
        hidden = bool(self.config.output_hidden_states if hidden is None else hidden)
        attentions = bool(self.config.output_attentions if attentions is None else attentions)
        seen: dict[str, list[Tensor]] = {"hidden_states": [], "attentions": [], "cross_attentions": []}
        return (seen if hidden or attentions else None), hidden, attentions


class LorentzEncoder(_Half):
    """Token points and encoder layers."""

    main_input_name = "input_ids"

    def __init__(self, config: LorentzConfig, manifold: Lorentz | Euclidean) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TokenEmbedding(config, manifold, tokens=True)
        self.stack = LorentzTransformerEncoder(
            config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            manifold=manifold,
            **_stack(config),
        )

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Points of the tokens; the arguments are those of :class:`LorentzModel`."""
        seen, hidden, attentions = self._seen(output_hidden_states, output_attentions)
        x = self.embeddings(
            input_ids, inputs_embeds=inputs_embeds, token_type_ids=token_type_ids, position_ids=position_ids
        )
        padding, mask = split_mask(attention_mask)
        x = self.stack(x, key_padding_mask=padding, attn_mask=mask, seen=seen, need_weights=attentions)
        output = BaseModelOutput(
            last_hidden_state=x,
            hidden_states=tuple(seen["hidden_states"]) if seen and hidden else None,
            attentions=tuple(seen["attentions"]) if seen and attentions else None,
        )
        return finish(output, return_dict, self.config)


class LorentzDecoder(_Half):
    """Decoder layers; the token points are those of the encoder."""

    def __init__(self, config: LorentzConfig, manifold: Lorentz | Euclidean) -> None:
        super().__init__()
        self.config = config
        self.embeddings = TokenEmbedding(config, manifold, tokens=False)
        self.stack = LorentzTransformerDecoder(
            config.num_decoder_layers or config.num_hidden_layers,
            config.hidden_size,
            config.num_attention_heads,
            config.intermediate_size,
            manifold=manifold,
            **_stack(config),
        )

    def forward(
        self,
        inputs_embeds: Tensor,
        memory: Tensor,
        attention_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        past_key_values: Any = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
    ) -> Any:
        """Points of the tokens, each of which sees those before it and the memory."""
        seen, hidden, attentions = self._seen(output_hidden_states, output_attentions)
        offset = 0 if past_key_values is None else past_key_values.get_seq_length()
        x = self.embeddings(inputs_embeds=inputs_embeds, offset=offset)
        padding, mask = split_mask(attention_mask)
        memory_padding, memory_mask = split_mask(memory_mask)
        x = self.stack(
            x,
            memory,
            key_padding_mask=padding,
            attn_mask=mask,
            memory_padding_mask=memory_padding,
            memory_mask=memory_mask,
            caches=None if past_key_values is None else layer_caches(past_key_values, self.stack.num_layers),
            seen=seen,
            need_weights=attentions,
        )
        return BaseModelOutputWithPastAndCrossAttentions(
            last_hidden_state=x,
            **{CACHE: past_key_values},
            hidden_states=tuple(seen["hidden_states"]) if seen and hidden else None,
            attentions=tuple(seen["attentions"]) if seen and attentions else None,
            cross_attentions=tuple(seen["cross_attentions"]) if seen and attentions else None,
        )


class LorentzModel(LorentzPreTrainedModel):
    """Encoder, or encoder and decoder if ``config.is_encoder_decoder``, that returns points.

    Examples
    --------
    >>> model = LorentzModel(LorentzConfig(vocab_size=50, hidden_size=17, num_hidden_layers=1))
    >>> model(torch.tensor([[5, 6, 7]])).last_hidden_state.shape
    torch.Size([1, 3, 17])
    """

    def __init__(self, config: LorentzConfig) -> None:
        super().__init__(config)
        self.manifold = config.manifold()
        self.encoder = LorentzEncoder(config, self.manifold)
        self.decoder = LorentzDecoder(config, self.manifold) if config.is_encoder_decoder else None
        self.geometry = geometry_of(self.manifold)
        self.post_init()

    @classmethod
    def from_euclidean(cls, model: nn.Module, *, k: float = 1e6, learnable_k: bool = False) -> LorentzModel:
        r"""Convert a pretrained encoder of transformers: BERT, MiniLM, RoBERTa, DistilBERT and their kin.

        The weights act on space coordinates, the time columns are 0, and attention has ``attention_logits="relative"``. All
        but the attention is then the same function for every k; attention differs by :math:`O(1/k)`, in its logits and in
        the length of its centroids, so at the default k results are equal to about six digits. ``set_k`` lowers k from
        there. In training, dropout comes before the output map of each block in place of after it.

        Parameters
        ----------
        model : an encoder of transformers, or a model with a head on one. The head and the pooler are not carried over.
        k : float, > 0
        learnable_k : bool

        Returns
        -------
        LorentzModel in evaluation mode, with the dtype and device of `model`. Its sequences of hidden states have the
            states of `model` as space coordinates. Positions of RoBERTa count from the first token: pad on the right.

        Raises
        ------
        ValueError : an architecture that is not supported, with the reason.
        """
        return convert(cls, model, k=k, learnable_k=learnable_k)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        cache: Any = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Points (batch, length, hidden_size), on the hyperboloid, as a ``BaseModelOutput`` or ``Seq2SeqModelOutput``.

        Parameters
        ----------
        input_ids, token_type_ids, position_ids : int, shape (batch, length)
        attention_mask : shape (batch, length), not 0 is a token; or (batch, length, length) or (batch, heads, length,
            length), bool, 0 and 1 of any dtype, or additive floats. A decoder sees the tokens that any token sees.
        inputs_embeds : space coordinates (batch, length, hidden_size - 1), in place of `input_ids`
        decoder_input_ids, decoder_attention_mask, decoder_inputs_embeds, encoder_outputs, use_cache : as in transformers, for
            an encoder-decoder
        past_key_values, cache : the cache, by the name that transformers gives it before 5.24 and from there on; one that is
            given is used, and `use_cache` says whether there is a new one where none is
        output_attentions, output_hidden_states, return_dict : as in transformers
        """
        asked = {"output_attentions": output_attentions, "output_hidden_states": output_hidden_states}
        if encoder_outputs is None:
            encoder_outputs = self.encoder(
                input_ids,
                attention_mask,
                token_type_ids,
                position_ids,
                inputs_embeds=inputs_embeds,
                return_dict=True,
                **asked,
            )
        elif not isinstance(encoder_outputs, BaseModelOutput):
            encoder_outputs = BaseModelOutput(*encoder_outputs)
        if self.decoder is None:
            if decoder_input_ids is not None or decoder_inputs_embeds is not None:
                raise ValueError("this model has no decoder: set is_encoder_decoder=True in its configuration")
            return finish(encoder_outputs, return_dict, self.config)
        if (decoder_input_ids is None) == (decoder_inputs_embeds is None):
            raise ValueError("give decoder_input_ids or decoder_inputs_embeds, one of them")
        if decoder_inputs_embeds is None:
            decoder_inputs_embeds = self.get_input_embeddings()(decoder_input_ids)
        past = one_cache(past_key_values, cache)
        caching = self.config.use_cache and not torch.is_grad_enabled() if use_cache is None else use_cache
        decoded = self.decoder(
            decoder_inputs_embeds,
            encoder_outputs.last_hidden_state,
            attention_mask=decoder_attention_mask,
            memory_mask=seen_keys(attention_mask),
            past_key_values=new_cache() if past is None and caching else past,
            **asked,
        )
        output = Seq2SeqModelOutput(
            last_hidden_state=decoded.last_hidden_state,
            **{CACHE: getattr(decoded, CACHE)},
            decoder_hidden_states=decoded.hidden_states,
            decoder_attentions=decoded.attentions,
            cross_attentions=decoded.cross_attentions,
            encoder_last_hidden_state=encoder_outputs.last_hidden_state,
            encoder_hidden_states=encoder_outputs.hidden_states,
            encoder_attentions=encoder_outputs.attentions,
        )
        return finish(output, return_dict, self.config)
