"""Backbones and their tokenizers: of transformers, or of lorentz.hf, from a folder or the cache; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

import lorentz.hf  # its models are known to AutoModel from here on
from tasks.backbones import BACKBONES
from tasks.backbones import path as packaged
from tasks.encoder import encoder_folder
from tasks.errors import UsageError
from tasks.registry import did_you_mean
from tasks.sources import model_sha256

from .config import BASELINES, ModelConfig

__all__ = ["backbone_sha256", "check_fits", "is_lorentz", "load_backbone", "load_tokenizer", "longest", "source_of"]

_PACKAGED = "minilm"


@contextmanager
def _quiet() -> Iterator[None]:
    """Without progress bars and the report of unused weights: this module checks what matters of it."""
    from transformers.utils import logging

    level = logging.get_verbosity()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)


def source_of(name: str) -> str:
    """What transformers is asked for: the folder of a model, or its name in the cache.

    Raises
    ------
    UsageError : a folder without a model, or a name that the cache has not.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.errors import HFValidationError

    if name == _PACKAGED:
        return str(encoder_folder(option="--model.name"))
    if name in BACKBONES:
        folder = packaged(name)
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"--model.name {name}: this installation of hyrel lacks it; {folder / 'config.json'} is not there"
            )
        return str(folder)
    if Path(name).is_dir():
        if not (Path(name) / "config.json").is_file():
            raise UsageError(
                f"--model.name {name}: the folder holds no config.json, which every model of transformers has"
            )
        return name
    try:
        found = isinstance(try_to_load_from_cache(name, "config.json"), str)
    except HFValidationError:
        found = False
    if not found:
        near = did_you_mean(name, [_PACKAGED, *BACKBONES, *BASELINES])
        raise UsageError(
            f"--model.name {name}: there is no such folder, and no such model in the cache of transformers, {HF_HUB_CACHE} "
            f"(nothing is downloaded). {near} Or a folder with config.json, model.safetensors and tokenizer.json."
        )
    return name


def backbone_sha256(config: ModelConfig) -> str | None:
    """SHA-256 of the files of a backbone, or None where it is no longer there."""
    from huggingface_hub import try_to_load_from_cache

    try:
        folder = Path(source_of(config.name))
    except UsageError:
        return None
    if not folder.is_dir():
        folder = Path(str(try_to_load_from_cache(config.name, "config.json"))).parent
    return model_sha256(folder, weights=not config.random)


def load_tokenizer(name: str) -> Any:
    """Tokenizer that belongs to a backbone.

    Raises
    ------
    UsageError : there is none.
    """
    from transformers import AutoTokenizer

    source = source_of(name)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UsageError(f"--model.name {name}: no tokenizer there (tokenizer.json): {_line(error)}") from None
    if len(tokenizer) <= len(tokenizer.all_special_ids):  # transformers makes an empty one where it finds no vocabulary
        raise UsageError(f"--model.name {name}: no tokenizer there (tokenizer.json)")
    return tokenizer


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


def load_backbone(config: ModelConfig) -> Any:
    """Encoder that gives ``last_hidden_state``, in float32, without a pooling layer; weights drawn anew if so configured.

    Of a model with encoder and decoder it is the encoder.

    Raises
    ------
    UsageError : a model that is not there or has not all its weights.
    """
    from transformers import AutoConfig, AutoModel

    source = source_of(config.name)
    try:
        with _quiet():
            settings = AutoConfig.from_pretrained(source, local_files_only=True)
            if settings.model_type == "lorentz":
                settings.is_encoder_decoder = False
            if config.random:
                model, missing = AutoModel.from_config(settings).float(), []
            else:
                model, info = AutoModel.from_pretrained(
                    source, config=settings, dtype=torch.float32, local_files_only=True, output_loading_info=True
                )
                missing = [name for name in info["missing_keys"] if not name.endswith("_extra_state")]
    except (OSError, ValueError, KeyError, RuntimeError, ImportError, SafetensorError) as error:
        raise UsageError(f"--model.name {config.name}: transformers cannot load it: {_line(error)}") from None
    if settings.is_encoder_decoder:
        model = model.get_encoder()
        missing = [name for name in missing if "decoder" not in name]
    if isinstance(getattr(model, "pooler", None), nn.Module):  # it would count as trained and never be
        model.pooler = None
        missing = [name for name in missing if not name.startswith("pooler.")]
    if missing:
        raise UsageError(
            f"--model.name {config.name}: its weights lack {len(missing)} tensors of the architecture, such as "
            f"{sorted(missing)[0]}; is it a whole model? --model.random draws all of them anew"
        )
    return model


def is_lorentz(backbone: nn.Module) -> bool:
    """Whether the hidden states come with a geometry, that of Lorentz models and of their flat twins."""
    return isinstance(backbone, lorentz.hf.LorentzModel)


def longest(backbone: Any) -> int | None:
    """Most tokens that a backbone has positions for, or None."""
    config = backbone.config
    if getattr(config, "position_embedding_type", None) in ("rotary", "sinusoidal"):
        return None
    limit: int | None = getattr(config, "max_position_embeddings", None)
    table: Any = getattr(getattr(backbone, "embeddings", None), "position_embeddings", None)
    padding: int | None = getattr(table, "padding_idx", None)
    if limit is not None and padding is not None:
        limit -= padding + 1  # the first positions belong to padding (RoBERTa)
    return limit


def check_fits(backbone: Any, name: str, *, max_length: int, largest: int) -> None:
    """Refuse more tokens than a backbone has positions, and token ids (the largest is given) that it does not know."""
    limit, known = longest(backbone), backbone.get_input_embeddings().weight.shape[0]
    if limit is not None and max_length > limit:
        raise UsageError(f"--max_length {max_length}: {name} has positions for {limit} tokens")
    if largest >= known:
        raise UsageError(
            f"--model.name {name}: its tokenizer gives the id {largest} and the model knows {known} tokens; they do not "
            "belong together"
        )
