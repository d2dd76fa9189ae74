"""A trained encoder made ready to be handed on: half precision, and a card that says what it is, made from its results."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tasks.data.sets import DATA

__all__ = ["card", "ship"]


def ship(source: Path, target: Path) -> None:
    """Write the encoder of a finished run's folder ``pretrained`` to `target`, its weights as float16.

    The configuration names float32, which is what ``from_pretrained`` then gives.
    """
    from transformers import AutoTokenizer

    from lorentz.hf import LorentzForMaskedLM

    model = LorentzForMaskedLM.from_pretrained(source).half()
    model.save_pretrained(target)
    model.config.dtype = torch.float32
    model.config.save_pretrained(target)
    AutoTokenizer.from_pretrained(source).save_pretrained(target)


def _scores(metrics: Mapping[str, Mapping[str, float]]) -> str:
    return " | ".join(
        f"{metrics[split][name]:.{digits}f}"
        for split in ("valid", "test")
        for name, digits in (("cross_entropy", 4), ("perplexity", 1), ("accuracy", 4))
    )


def card(
    name: str, config: Mapping[str, Any], results: Mapping[str, Mapping[str, Any]], tokens: Mapping[str, int]
) -> str:
    """Text of a model's README.md.

    Parameters
    ----------
    name : of the model
    config : of its run
    results : ``result.json`` of both geometries
    tokens : ``text``, of the training split, and ``seen``, in training
    """
    model, train, text = config["model"], config["train"], config["text"]
    own, other = model["geometry"], next(geometry for geometry in results if geometry != model["geometry"])
    entry = DATA[config["data"]]
    space = model["hidden_size"] - 1
    kind, points = "Euclidean", f"{space} coordinates"
    case = "lower case" if text["lowercase"] else "cased"
    if own == "lorentz":
        kind, points = "hyperbolic (Lorentz)", f"points of {space} space coordinates and a time, k = {model['k']:g}"
    rows = "\n".join(
        f"| {geometry} | {result['params']['total']:,} | {_scores(result['metrics'])} |"
        for geometry, result in results.items()
    )
    return f"""---
license: apache-2.0
language: en
library_name: transformers
pipeline_tag: fill-mask
---

# {name}

A small encoder of English text with {kind} layers, and one of a matched pair: the {other} twin has the same number of
free coordinates, parameters within 1 %, vocabulary, text, batches, masks and steps.

- Architecture: {model["layers"]} layers, {model["heads"]} heads, {points}; {model["positions"]} positions, norms before
  each map, no token types, output layer tied to the tokens.
- Vocabulary: byte-level BPE of {text["vocabulary"]:,} tokens learned on the training text, {case}.
- Text: `{config["data"]}`, {entry.origin}; {tokens["text"]:,} tokens in the training split.
- Training: {tokens["seen"]:,} tokens seen ({tokens["seen"] / tokens["text"]:.2f} passes), sequences of {text["length"]}, \
{train["batch_size"]} a step, {text["mask"]:.0%} of the tokens to predict, AdamW at a peak rate of {train["lr"]:g} (the best \
of four on validation data), one seed.
- Weights: float16 in the file, float32 when loaded.

Masked tokens of held-out books, with the same masks for both; the perplexity counts masked tokens of this vocabulary only.
Before rounding to float16, one seed each: a difference between the two is no ranking of geometries.

| geometry | parameters | valid nats | perplexity | accuracy | test nats | perplexity | accuracy |
| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |
{rows}

## Use

```python
import lorentz.hf  # registers the model
from tasks.backbones import path
from transformers import AutoModelForMaskedLM, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained(path("{name}"))
model = AutoModelForMaskedLM.from_pretrained(path("{name}"))
```

## Limits

Trained on so little text, and on English books published up to 1927, it knows few facts, no modern words, and the opinions
of its authors' time. It is meant for comparing geometries and methods of tuning at a small cost, not for use in a product.

## Licence

Weights: Apache-2.0. Text: {entry.licence}.
"""
