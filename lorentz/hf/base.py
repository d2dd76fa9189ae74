"""What every model of the family is: initial values, ties, the curvature, and what an optimiser decays."""

from __future__ import annotations

from math import log
from typing import Any

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init

from ..attention_base import DistanceAttention
from ..flat import EuclideanClassifier, EuclideanLinear
from ..heads import LorentzClassifier
from ..linear import LorentzLinear
from ..manifold import Lorentz
from ..normalization import LorentzLayerNorm
from ..positional import LearnedPositions
from .configuration import LorentzConfig

__all__ = ["LorentzPreTrainedModel"]


class LorentzPreTrainedModel(PreTrainedModel):
    """What all Lorentz models of this family share: initial values, tied tensors, and one curvature in a checkpoint.

    A checkpoint names k and a learned ``rho`` once, at ``manifold``, however many layers share them.
    """

    config: LorentzConfig
    config_class = LorentzConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _no_split_modules = ["LorentzTransformerEncoderLayer", "LorentzTransformerDecoderLayer"]  # noqa: RUF012
    _skip_keys_device_placement = ["past_key_values", "cache"]  # noqa: RUF012
    _supports_sdpa = True
    _keys_to_ignore_on_load_missing = [r"_extra_state$"]  # noqa: RUF012

    def post_init(self) -> None:
        """Initial values, ties, and what a checkpoint leaves out."""
        super().post_init()
        shared = [name for name in self._curvatures() if not name.startswith(self._home)]
        self._keys_to_ignore_on_save = set(shared)

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights; a learned curvature is float64 whatever they are."""
        return next(p.dtype for name, p in self.named_parameters() if not name.endswith("rho"))

    @property
    def _home(self) -> str:
        return "manifold." if self.base_model is self else f"{self.base_model_prefix}.manifold."

    def _curvatures(self) -> list[str]:
        """Names of the state of the manifold, one set for each layer that has it."""
        names = []
        for path, module in self.named_modules(remove_duplicate=False):
            if isinstance(module, Lorentz):
                names += [f"{path}._extra_state"] + ([f"{path}.rho"] if module.learnable else [])
        return names

    def get_expanded_tied_weights_keys(self, all_submodels: bool = False) -> dict[str, str]:
        """The ties that transformers knows, and those of a learned curvature."""
        tied: dict[str, str] = super().get_expanded_tied_weights_keys(all_submodels=all_submodels)
        others = [name for name in self._curvatures() if name.endswith("rho") and not name.startswith(self._home)]
        return {**tied, **{name: f"{self._home}rho" for name in others}}

    def mark_tied_weights_as_initialized(self, loading_info: Any) -> None:
        """As in transformers, but a learned curvature that a checkpoint does not have is missing under all its names."""
        name = f"{self._home}rho"
        missing = name in loading_info.missing_keys
        super().mark_tied_weights_as_initialized(loading_info)
        if missing:
            loading_info.missing_keys.add(name)
            setattr(self.get_parameter(name), "_is_hf_initialized", False)  # noqa: B010

    def tie_weights(self, *args: Any, **options: Any) -> None:
        """Tie, and mark the parameters that are points again: a loaded tensor has lost its marks."""
        super().tie_weights(*args, **options)
        for module in self.modules():
            tag = getattr(module, "_tag", None)
            if tag is not None:
                tag()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        fresh = not getattr(getattr(module, "weight", None), "_is_hf_initialized", False)
        if isinstance(module, LorentzLinear | EuclideanLinear | LorentzClassifier | EuclideanClassifier):
            if fresh:
                module.reset_parameters()
                return
            # A weight that was loaded, or is tied to one, leaves what a checkpoint may lack.
            if module.bias is not None:
                init.zeros_(module.bias)
            if isinstance(module, LorentzLinear) and module.log_scale is not None:
                init.constant_(module.log_scale, log(module.scale))
        elif isinstance(module, nn.Embedding | LearnedPositions):
            init.normal_(module.weight, 0.0, self.config.initializer_range)
            padding: Any = getattr(module, "padding_idx", None)
            if fresh and padding is not None:
                module.weight[padding] = 0
        elif isinstance(module, LorentzLayerNorm | nn.LayerNorm):
            init.ones_(module.weight)
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, DistanceAttention):
            module.reset_parameters()
        elif isinstance(module, Lorentz) and module.rho is not None:
            init.zeros_(module.rho)

    def set_k(self, k: float) -> None:
        """Give all layers, and the configuration, another k, as in training at a k that falls from step to step.

        Raises
        ------
        ValueError : a flat twin, or a k that is not positive and finite.
        """
        base: Any = self.base_model
        if not isinstance(base.manifold, Lorentz):
            raise ValueError('this model has geometry="euclidean" and no k')
        base.manifold.set_k(k)
        self._configure_k()

    def _configure_k(self) -> None:
        base: Any = self.base_model
        for module in self.modules():
            if isinstance(getattr(module, "config", None), LorentzConfig):
                module.config.k = float(base.manifold.k0)  # type: ignore[union-attr]

    def save_pretrained(self, *args: Any, **options: Any) -> None:
        """Save, with the k that the layers start from in the configuration; see transformers."""
        base: Any = self.base_model
        if isinstance(base.manifold, Lorentz):
            self._configure_k()
        super().save_pretrained(*args, **options)

    def parameter_groups(self, weight_decay: float) -> list[dict[str, Any]]:
        """Parameters for an optimiser: matrices and tables with this weight decay, all others without.

        The others are gains, biases, the scales of attention and of bounded maps, and a learned k, in both geometries. The
        ``Trainer`` of transformers goes by names and by ``nn.LayerNorm``, and decays some of these: give it the optimiser,
        ``Trainer(..., optimizers=(RiemannianAdam(model.parameter_groups(0.01), lr=1e-4), None))``.
        """
        groups: list[dict[str, Any]] = [
            {"params": [], "weight_decay": weight_decay},
            {"params": [], "weight_decay": 0.0},
        ]
        for p in self.parameters():
            if p.requires_grad:
                groups[p.ndim < 2]["params"].append(p)
        return groups

    def get_input_embeddings(self) -> nn.Module:
        """The table of token points, space coordinates (vocab_size, hidden_size - 1)."""
        base: Any = self.base_model
        table: nn.Module = base.encoder.embeddings.word
        return table

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Put another table."""
        base: Any = self.base_model
        base.encoder.embeddings.word = value
        base.encoder.embeddings._tag()
