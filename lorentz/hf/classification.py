"""Classes of sequences and of tokens."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput, TokenClassifierOutput

from ..pooling import LorentzPooling
from .base import LorentzPreTrainedModel
from .configuration import LorentzConfig
from .masks import split_mask
from .model import LorentzModel, finish

__all__ = ["LorentzForSequenceClassification", "LorentzForTokenClassification"]


class _Classifier(LorentzPreTrainedModel):
    """A backbone and a classifier of points, after dropout of their space coordinates."""

    def __init__(self, config: LorentzConfig) -> None:
        config = deepcopy(config)
        config.is_encoder_decoder = False
        super().__init__(config)
        self.num_labels = config.num_labels
        self.model = LorentzModel(config)
        p = config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout
        self.dropout = nn.Dropout(p)
        self.classifier = self.model.geometry.classifier(config.hidden_size, config.num_labels, kind=config.classifier)

    def classify(self, x: Tensor) -> Tensor:
        """Logits of points."""
        if self.training and self.dropout.p:
            x = self.model.manifold.lift(self.dropout(self.model.geometry.space_of(x)))
        logits: Tensor = self.classifier(x)
        return logits


class LorentzForSequenceClassification(_Classifier):
    """A class, several, or a number for each sequence, from the pooled and normalised points of its tokens.

    ``config.problem_type`` is ``"regression"``, ``"single_label_classification"`` or ``"multi_label_classification"``; if
    None it follows from the number of labels and their dtype, as in transformers.

    Examples
    --------
    >>> model = LorentzForSequenceClassification(LorentzConfig(vocab_size=50, hidden_size=17, num_hidden_layers=1))
    >>> model(torch.tensor([[5, 6, 7]])).logits.shape
    torch.Size([1, 2])
    """

    def __init__(self, config: LorentzConfig) -> None:
        super().__init__(config)
        self.pooling = LorentzPooling(config.pooling, manifold=self.model.manifold)
        norm = self.model.geometry.norm(config.hidden_size, eps=config.layer_norm_eps)
        self.norm = None if config.norm == "none" else norm
        self.post_init()

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
        """Logits (batch, num_labels), and the loss if there are `labels`, (batch,) or (batch, num_labels)."""
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
        x = self.pooling(found.last_hidden_state, key_padding_mask=split_mask(attention_mask)[0])
        logits = self.classify(x if self.norm is None else self.norm(x))
        output = SequenceClassifierOutput(
            loss=None if labels is None else self._loss(logits.float(), labels),
            logits=logits,
            hidden_states=found.hidden_states,
            attentions=found.attentions,
        )
        return finish(output, return_dict, self.config)

    def _loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        kind: str | None = self.config.problem_type
        if kind is None:
            several = "single_label_classification" if not labels.is_floating_point() else "multi_label_classification"
            kind = "regression" if self.num_labels == 1 else several
        if kind == "regression":
            return F.mse_loss(logits.view(labels.shape), labels.to(logits))
        if kind == "multi_label_classification":
            return F.binary_cross_entropy_with_logits(logits, labels.to(logits))
        return F.cross_entropy(logits, labels.to(torch.long).flatten())


class LorentzForTokenClassification(_Classifier):
    """A class for each token.

    Examples
    --------
    >>> model = LorentzForTokenClassification(LorentzConfig(vocab_size=50, hidden_size=17, num_hidden_layers=1))
    >>> model(torch.tensor([[5, 6, 7]])).logits.shape
    torch.Size([1, 3, 2])
    """

    def __init__(self, config: LorentzConfig) -> None:
        super().__init__(config)
        self.post_init()

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
        """Logits (batch, length, num_labels), and the loss where `labels` (batch, length) are not -100."""
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
        logits = self.classify(found.last_hidden_state)
        loss = None if labels is None else F.cross_entropy(logits.flatten(0, 1).float(), labels.long().flatten())
        output = TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=found.hidden_states, attentions=found.attentions
        )
        return finish(output, return_dict, self.config)
