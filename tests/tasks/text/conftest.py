"""A separable toy set, a pair set with numbers, and tiny random backbones with a word tokenizer."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch

GOOD, BAD = ("good", "great", "fine", "fun"), ("bad", "poor", "dull", "awful")
FILLERS = ("the", "film", "is", "a", "plot", "and", "it", "was", "cast", "story")


def toy_rows(count: int, seed: int, *, pairs: bool = False) -> list[str]:
    """Lines ``text TAB label``: good and bad words among fillers; of pairs, the number is how many words they share."""
    draw, rows = random.Random(seed), []
    for i in range(count):
        words = draw.choices(FILLERS, k=draw.randint(2, 7))
        if pairs:
            shared = i % 4
            first = draw.sample(FILLERS, 5)
            second = first[:shared] + draw.sample(GOOD, 4 - shared)
            rows.append("\t".join((" ".join(first), " ".join(second), f"{float(shared)}")))
        else:
            label = i % 2
            words.insert(draw.randint(0, len(words)), draw.choice(GOOD if label else BAD))
            rows.append("\t".join((" ".join(words), ("neg", "pos")[label])))
    return rows


def write_toy(folder: Path, *, pairs: bool = False) -> Path:
    folder.mkdir()
    for split, count, seed in (("train", 160, 0), ("valid", 40, 1), ("test", 60, 2)):
        lines = toy_rows(count, seed, pairs=pairs)
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """Folder of a two-class set that a word decides."""
    return write_toy(tmp_path / "toy")


@pytest.fixture
def toy_pairs(tmp_path: Path) -> Path:
    """Folder of pairs with a number each."""
    return write_toy(tmp_path / "pairs", pairs=True)


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
        model: Any = BertModel(BertConfig(vocab_size=len(WORDS), max_position_embeddings=32, **{**shape, **options}))
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
