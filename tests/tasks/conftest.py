"""Tiny random backbones with a word tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

GOOD, BAD = ("good", "great", "fine", "fun"), ("bad", "poor", "dull", "awful")
FILLERS = ("the", "film", "is", "a", "plot", "and", "it", "was", "cast", "story")


def save_tokenizer(folder: Path, words: list[str]) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    ).save_pretrained(folder)


WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *GOOD, *BAD, *FILLERS]


def make_backbone(folder: Path, kind: str, **options: Any) -> Path:
    """Save a tiny random backbone: ``bert``, ``lorentz`` (of which only tokenizer.json names the tokenizer) or ``twin``."""
    torch.manual_seed(11)
    if kind == "bert":
        from transformers import BertConfig, BertModel

        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        shape |= {"max_position_embeddings": 32, **options}
        model: Any = BertModel(BertConfig(vocab_size=len(WORDS), **shape))
    else:
        from lorentz.hf import LorentzConfig, LorentzForMaskedLM

        options = {"geometry": "euclidean" if kind == "twin" else "lorentz", "num_hidden_layers": 1, **options}
        model = LorentzForMaskedLM(
            LorentzConfig(vocab_size=len(WORDS), hidden_size=17, max_position_embeddings=32, **options)
        )
    model.save_pretrained(folder)
    save_tokenizer(folder, WORDS)
    if kind != "bert":
        (folder / "tokenizer_config.json").unlink()
    return folder


@pytest.fixture(scope="session")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Folders of the tiny backbones, by kind."""
    root = tmp_path_factory.mktemp("backbones")
    return {kind: str(make_backbone(root / kind, kind)) for kind in ("bert", "lorentz", "twin")}
