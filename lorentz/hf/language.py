"""Masked language models."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import MaskedLMOutput

from .base import LorentzPreTrainedModel
from .configuration import LorentzConfig
from .model import LorentzModel, finish

__all__ = ["LorentzForMaskedLM", "VocabularyModel"]

TIED = {"lm_head.weight": "model.encoder.embeddings.word.weight"}


class VocabularyModel(LorentzPreTrainedModel):
    """A backbone with one logit for each token: by how much the point is nearer to the token's than the origin.

    The points of the tokens are those of the embedding if ``config.tie_word_embeddings``.
    """

    _tied_weights_keys = TIED
    encoder_decoder = False
    lm_head: nn.Module

    def __init__(self, config: LorentzConfig) -> None:
        config = deepcopy(config)
        config.is_encoder_decoder = self.encoder_decoder
        super().__init__(config)
        self.model = LorentzModel(config)
        self.lm_head = self.model.geometry.classifier(config.hidden_size, config.vocab_size, kind="relative")
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        """The output layer."""
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        """Put another output layer."""
        self.lm_head = value

    @torch.no_grad()
    def _get_resized_lm_head(  # type: ignore[override]
        self, old_lm_head: Any, new_num_tokens: int | None = None, **_options: Any
    ) -> nn.Module:
        """The output layer with more tokens or fewer: new points are drawn as at the start, their biases are 0."""
        head: nn.Module = old_lm_head
        if new_num_tokens is not None and new_num_tokens != old_lm_head.bias.shape[0]:
            kept = min(new_num_tokens, old_lm_head.bias.shape[0])
            for name, std in (("weight", self.config.initializer_range), ("bias", 0.0)):
                old = getattr(old_lm_head, name)
                new = torch.empty(new_num_tokens, *old.shape[1:], dtype=old.dtype, device=old.device).normal_(0, std)
                new[:kept] = old[:kept]
                setattr(head, name, nn.Parameter(new, requires_grad=old.requires_grad))
            old_lm_head.num_classes = new_num_tokens
        return head


class LorentzForMaskedLM(VocabularyModel):
    """Encoder that predicts masked tokens.

    Examples
    --------
    >>> model = LorentzForMaskedLM(LorentzConfig(vocab_size=50, hidden_size=17, num_hidden_layers=1))
    >>> model(torch.tensor([[5, 6, 7]])).logits.shape
    torch.Size([1, 3, 50])
    """

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        output_attentions: bool | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Any:
        """Logits (batch, length, vocab_size), and the loss where `labels` (batch, length) are not -100."""
        found = self.model(
            input_ids,
            attention_mask,
            token_type_ids,
            position_ids,
            inputs_embeds=inputs_embeds,
            output_attentions=output_attentions,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        logits = self.lm_head(found.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.long().flatten())
        output = MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions
        )
        return finish(output, return_dict, self.config)
