"""The task of conversion: a Lorentz model learns the states of the Euclidean encoder it was made from."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lorentz.hf import LorentzModel
from lorentz.math import space_of
from tasks.data.corpus import Corpus
from tasks.encoder import encoder_folder, encoder_sources
from tasks.errors import UsageError

from .config import ConvertConfig

__all__ = ["Conversion", "k_at", "mean_state", "sentences"]

_END = re.compile(r"(?<=[.!?;])\s+")
_WORDS = 4  # fewest of a sentence
_WINDOW = 32  # batches among which sentences of one length go together
_AT_ONCE = 64


def sentences(paragraphs: list[str]) -> list[str]:
    """Sentences and clauses of a text, in order, without the shortest."""
    parts = (part.strip() for paragraph in paragraphs for part in _END.split(paragraph))
    return [part for part in parts if len(part.split()) >= _WORDS]


def k_at(step: int, total: int, *, start: float, end: float, share: float) -> float:
    """Value of k at `step` of `total`: falls from `start` to `end` by a constant factor over a share of the steps."""
    done = min(step / (share * total), 1.0) if share else 1.0
    return float(start ** (1 - done) * end**done)


def mean_state(states: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, d) over the tokens of states (B, S, d)."""
    weight = mask.unsqueeze(-1).to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1)


class Conversion:
    """Sentence vectors and hidden states of the source, at a k that falls from batch to batch."""

    name = "convert"
    Config = ConvertConfig
    Data = Corpus
    kind = "corpus"
    takes = "corpus of plain text"
    monitor = "cosine"
    exports = "converted"

    def __init__(self, config: ConvertConfig) -> None:
        self.config = config
        self._source: tuple[Any, nn.Module] | None = None
        self._made: tuple[str, dict[str, list[str]]] | None = None

    def source(self) -> tuple[Any, Any]:
        """Tokenizer and encoder that is converted, which stays as it is."""
        if self._source is None:
            from transformers import AutoModel, AutoTokenizer
            from transformers.utils import logging

            logging.disable_progress_bar()
            folder = encoder_folder(self.config.model.source, option="--model.source")
            model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval().requires_grad_(False)
            self._source = AutoTokenizer.from_pretrained(folder), model
        return self._source

    def sources(self) -> dict[str, str]:
        """SHA-256 of the encoder that is converted."""
        return encoder_sources(self.config.model.source)

    def prepare(self, data: Corpus) -> dict[str, list[str]]:
        """Sentences by split; made once for each content."""
        if self._made is None or self._made[0] != data.sha256:
            found = {split: sentences(lines) for split, lines in data.paragraphs.items()}
            for split, lines in found.items():
                if not lines:
                    raise UsageError(f"the {split} split of {data.name} has no sentence of {_WORDS} words")
            self._made = data.sha256, found
        return self._made[1]

    def build(self, config: ConvertConfig, data: Corpus) -> LorentzModel:
        """Convert the source, without its dropout: the states to learn have none."""
        _, teacher = self.source()
        try:
            model = LorentzModel.from_euclidean(teacher, k=config.model.k)
        except ValueError as error:
            raise UsageError(f"--model.source {config.model.source}: {error}") from None
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
            elif isinstance(getattr(module, "dropout", None), float):
                module.dropout = 0.0  # type: ignore[assignment]
        return model.requires_grad_(True)

    def passes(self, data: Corpus) -> int:
        """Count the batches of a pass over the sentences."""
        return max(len(self.prepare(data)["train"]) // self.config.train.batch_size, 1)

    def n_batches(self, data: Corpus) -> int:
        """Count the batches of an epoch."""
        return self.config.epoch_steps or self.passes(data)

    def coded(self, texts: list[str]) -> dict[str, Tensor]:
        """Token ids and mask of sentences."""
        coded = self.source()[0](
            texts, padding=True, truncation=True, max_length=self.config.states.length, return_tensors="pt"
        )
        return {name: coded[name] for name in ("input_ids", "attention_mask")}

    def train_batch(self, data: Corpus, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take sentences of about one length, in an order that is a function of seed and pass, and the k of the step."""
        texts, size, count = self.prepare(data)["train"], self.config.train.batch_size, self.n_batches(data)
        step = epoch * count + index
        turn, place = divmod(step, self.passes(data))
        order = np.random.default_rng([seed, turn]).permutation(len(texts))
        window, within = divmod(place, _WINDOW)
        some = order[window * _WINDOW * size : min((window + 1) * _WINDOW, self.passes(data)) * size]
        some = some[np.argsort([len(texts[i]) for i in some], kind="stable")]
        within = int(np.random.default_rng([seed, turn, window]).permutation(-(-len(some) // size))[within])
        batch = self.coded([texts[i] for i in some[within * size : (within + 1) * size]])
        model, total = self.config.model, self.config.train.steps(count)
        k = k_at(step, total, start=model.k_start, end=model.k, share=model.anneal)
        return {**batch, "k": torch.tensor(k, dtype=torch.float64)}

    def compare(self, model: LorentzModel, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Cosine of the mean states of model and source (B,), and relative squared error of the states of each layer."""
        teacher = self.source()[1].to(input_ids.device)
        given = {"input_ids": input_ids, "attention_mask": attention_mask, "output_hidden_states": True}
        with torch.no_grad():
            wanted = teacher(**given).hidden_states
        found = [space_of(x) for x in model(**given).hidden_states]
        cosine = F.cosine_similarity(mean_state(found[-1], attention_mask), mean_state(wanted[-1], attention_mask))
        real = attention_mask.bool()
        errors = [
            (x[real] - y[real]).square().sum() / y[real].square().sum() for x, y in zip(found, wanted, strict=True)
        ]
        return cosine, torch.stack(errors)

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Error of sentence vectors and states, at the k of the batch; the model keeps its own."""
        assert isinstance(model, LorentzModel)
        model.set_k(float(batch["k"]))
        try:
            cosine, errors = self.compare(model, batch["input_ids"], batch["attention_mask"])
        finally:
            model.set_k(self.config.model.k)
        apart, error = 1 - cosine.mean(), errors.mean()
        loss = self.config.states.pooled * apart + self.config.states.hidden * error
        return loss, {"apart": apart.detach(), "error": error.detach(), "k": batch["k"]}

    def evaluate(self, model: nn.Module, data: Corpus, split: str) -> dict[str, float]:
        """At the last k: mean cosine of the sentence vectors, and relative error of the last and of all states."""
        assert isinstance(model, LorentzModel)
        device = next(model.parameters()).device
        texts = self.prepare(data)[split]
        count = min(self.config.states.valid_sentences, len(texts))
        chosen = [texts[i] for i in np.linspace(0, len(texts) - 1, count).astype(int)]
        chosen.sort(key=len)
        cosines, errors, weights = [], [], []
        for start in range(0, count, _AT_ONCE):
            batch = {key: value.to(device) for key, value in self.coded(chosen[start : start + _AT_ONCE]).items()}
            cosine, error = self.compare(model, **batch)
            cosines.append(cosine.double())
            errors.append(error.double())
            weights.append(batch["attention_mask"].sum())
        weight = torch.stack(weights).double()
        mean = (torch.stack(errors) * weight.unsqueeze(1)).sum(0) / weight.sum()
        return {
            "cosine": float(torch.cat(cosines).mean()),
            "last_error": float(mean[-1]),
            "error": float(mean.mean()),
        }

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """All parameters alike."""
        return [{"params": list(model.parameters())}]

    def export(self, model: nn.Module, data: Corpus, folder: Path) -> None:
        """Fill the folder that the runner gives with the model and its tokenizer, for ``from_pretrained``."""
        assert isinstance(model, LorentzModel)
        model.save_pretrained(folder)
        self.source()[0].save_pretrained(folder)
