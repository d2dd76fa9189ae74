"""Sequence to sequence, with ``generate``."""

from __future__ import annotations

from typing import Any

import torch.nn.functional as F
from torch import Tensor
from transformers import GenerationMixin
from transformers.modeling_outputs import Seq2SeqLMOutput

from .cache import CACHE, one_cache
from .configuration import LorentzConfig
from .language import VocabularyModel
from .model import finish

__all__ = ["LorentzForConditionalGeneration"]


def shift_right(labels: Tensor, config: LorentzConfig) -> Tensor:
    """The tokens that predict `labels`: the start token, then the labels but the last; -100 becomes the padding token."""
    start, pad = config.decoder_start_token_id, config.pad_token_id
    if start is None or pad is None:
        raise ValueError("labels become decoder inputs by decoder_start_token_id and pad_token_id: set both")
    shifted = F.pad(labels[:, :-1], (1, 0), value=start)
    return shifted.masked_fill(shifted == -100, pad)


class LorentzForConditionalGeneration(VocabularyModel, GenerationMixin):
    """Encoder and decoder that predict the next token of the target.

    Examples
    --------
    >>> import torch
    >>> model = LorentzForConditionalGeneration(LorentzConfig(vocab_size=50, hidden_size=17, num_hidden_layers=1))
    >>> model(torch.tensor([[5, 6, 7]]), decoder_input_ids=torch.tensor([[1, 5]])).logits.shape
    torch.Size([1, 2, 50])
    """

    encoder_decoder = True

    def prepare_decoder_input_ids_from_labels(self, labels: Tensor) -> Tensor:
        """Decoder inputs of labels, as data collators ask for them."""
        return shift_right(labels, self.config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        decoder_input_ids: Tensor | None = None,
        decoder_attention_mask: Tensor | None = None,
        decoder_inputs_embeds: Tensor | None = None,
        encoder_outputs: Any = None,
        past_key_values: Any = None,
        cache: Any = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits (batch, target length, vocab_size), and the loss where `labels` (batch, target length) are not -100.

        With labels and no decoder inputs, those are the labels shifted by one.
        """
        if labels is not None:
            use_cache = False  # no new one
            if decoder_input_ids is None and decoder_inputs_embeds is None:
                decoder_input_ids = shift_right(labels, self.config)
        found = self.model(
            input_ids,
            attention_mask,
            token_type_ids,
            inputs_embeds=inputs_embeds,
            decoder_input_ids=decoder_input_ids,
            decoder_attention_mask=decoder_attention_mask,
            decoder_inputs_embeds=decoder_inputs_embeds,
            encoder_outputs=encoder_outputs,
            past_key_values=one_cache(past_key_values, cache),
            use_cache=use_cache,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(found.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.long().flatten())
        output = Seq2SeqLMOutput(
            loss=loss,
            logits=logits,
            **{CACHE: getattr(found, CACHE)},
            decoder_hidden_states=found.decoder_hidden_states,
            decoder_attentions=found.decoder_attentions,
            cross_attentions=found.cross_attentions,
            encoder_last_hidden_state=found.encoder_last_hidden_state,
            encoder_hidden_states=found.encoder_hidden_states,
            encoder_attentions=found.encoder_attentions,
        )
        return finish(output, return_dict, self.config)
