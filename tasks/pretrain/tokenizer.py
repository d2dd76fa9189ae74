"""A vocabulary of byte-level BPE, learned from the text itself, as a tokenizer of transformers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["SPECIAL", "learn_tokenizer"]

# In the order of their ids.
SPECIAL = ("[PAD]", "[CLS]", "[SEP]", "[MASK]", "[UNK]")


def learn_tokenizer(
    paragraphs: Iterable[str], *, vocabulary: int, lowercase: bool = True, max_length: int = 512
) -> Any:
    """Learn a vocabulary; the same text gives the same one.

    Every text can be written in it: what no merge covers is written in bytes, so ``[UNK]`` never appears.

    Parameters
    ----------
    paragraphs : texts
    vocabulary : tokens, the special ones and the 256 bytes included; fewer if the text has no more pairs to merge
    lowercase : read capital letters as small ones
    max_length : longest sequence that the tokenizer announces

    Returns
    -------
    PreTrainedTokenizerFast, which writes a text as ``[CLS] text [SEP]``
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    raw = Tokenizer(models.BPE(unk_token="[UNK]"))
    raw.normalizer = normalizers.Sequence([normalizers.NFC(), *([normalizers.Lowercase()] if lowercase else [])])
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        # a mask stands for a word with the space before it, as tokens have theirs
        special_tokens=[AddedToken(name, lstrip=name == "[MASK]", normalized=False, special=True) for name in SPECIAL],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    raw.train_from_iterator(paragraphs, trainer)
    raw.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B [SEP]",
        special_tokens=[(name, SPECIAL.index(name)) for name in ("[CLS]", "[SEP]")],
    )
    names: dict[str, Any] = {f"{name[1:-1].lower()}_token": name for name in SPECIAL}
    names["mask_token"] = AddedToken("[MASK]", lstrip=True, normalized=False, special=True)
    return PreTrainedTokenizerFast(
        tokenizer_object=raw, model_max_length=max_length, model_input_names=["input_ids", "attention_mask"], **names
    )
