"""Backbones of several sizes for the grid of delta methods, and how far each method is from full fine-tuning on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tasks.compare_deltas.command import Row
from tasks.text.backbone import source_of

from .paired import holm, paired_row

__all__ = ["METHODS", "first_layers", "less_full", "models"]

METHODS = ("LoRA", "Adapter", "BitFit")
LAYERS = 2


def models(runs: Path) -> list[str]:
    """Names and folders of the backbones, small ones first."""
    return ["euclidean-small", str(first_layers("minilm", LAYERS, runs / f"minilm-{LAYERS}-layers")), "minilm"]


def first_layers(name: str, layers: int, folder: Path) -> Path:
    """Make a folder with the first layers of a backbone and its tokenizer; one that is there is used as it is."""
    from transformers import AutoConfig, AutoModel, AutoTokenizer

    if not (folder / "tokenizer.json").is_file():
        source = source_of(name)
        config: Any = AutoConfig.from_pretrained(source, local_files_only=True)
        config.num_hidden_layers = layers
        AutoModel.from_pretrained(source, config=config, local_files_only=True).save_pretrained(folder)
        AutoTokenizer.from_pretrained(source, local_files_only=True).save_pretrained(folder)
    return folder


def less_full(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Each method less full fine-tuning by backbone and data set, paired by seed, Holm-adjusted over the rows of a method."""
    full = {(r.model, r.data): r for r in rows if r.method.name == "full"}
    found: list[dict[str, Any]] = []
    for method in dict.fromkeys(r.method.name for r in rows if r.method.parameters is not None):
        one = []
        for r in rows:
            whole = full[r.model, r.data]
            if r.method.name != method or r is whole or len(r.scores) < 2:
                continue
            what = f"{Path(r.model).name}, {r.data}, {method} less full: test {r.metric}"
            one.append(paired_row(what, r.scores, whole.scores) | {"relative": round(r.mean / whole.mean, 4)})
        holm(one)
        found += one
    return found
