"""The task of sentence and sentence-pair classification and regression."""

from __future__ import annotations

from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import deltas
from deltas.base import methods_of
from deltas.statistics import statistics
from tasks.data.text import SPLITS, Texts
from tasks.errors import UsageError
from tasks.registry import did_you_mean
from tasks.sources import files_sha256

from .backbone import backbone_sha256, check_fits, load_backbone, load_tokenizer
from .config import BASELINES, METRICS, TextConfig
from .labels import label_head
from .metrics import scores
from .model import TextModel, make_head
from .rows import epoch_batch, evaluation_rows, training_rows
from .stored import DELTA, SUBSPACE_FILES, load_delta, stored_sha256, stored_spec
from .tokens import Tokens, by_length, tokenize

__all__ = ["DELTA", "TextTask"]


class TextTask:
    """Classification or regression of texts, from a backbone that is tuned as a whole, by a delta, or not at all."""

    name = "text"
    Config = TextConfig
    Data = Texts
    kind = "text"
    takes = "set of texts"

    def __init__(self, config: TextConfig) -> None:
        self.config = config
        self.monitor = config.monitor or "accuracy"
        self._data: str | None = None
        self._tokens: dict[str, Tokens] = {}
        self._pooled: dict[str, Tensor] = {}
        self._rows: dict[str, np.ndarray] = {}
        self._model: TextModel | None = None

    def prepare(self, data: Texts) -> None:
        """Choose the rows and the metric; done once for each content."""
        if self._data == data.sha256:
            return
        self.monitor = self.config.monitor or data.monitor
        if self.monitor not in METRICS[data.kind]:
            near = did_you_mean(self.monitor, METRICS[data.kind])
            raise UsageError(f"--monitor {self.monitor}: {data.name} is a {data.kind}. {near}")
        rows, warnings = training_rows(data, self.config)
        self._rows = {split: evaluation_rows(data, split, self.config) for split in ("valid", "test")} | {"train": rows}
        data.warnings += [warning for warning in warnings if warning not in data.warnings]
        drawn = {"shots": "training rows a class", "max_train": "training rows", "max_eval": "rows evaluated"}
        for option, meaning in drawn.items():
            number = getattr(self.config, option)
            if number is not None and f"; {number} {meaning}" not in data.split:
                data.split += f"; {number} {meaning}"
        self._tokens, self._pooled, self._data = {}, {}, data.sha256

    def rows(self, data: Texts, split: str) -> np.ndarray:
        """Rows of a split that are used, sorted."""
        self.prepare(data)
        return self._rows[split]

    def tokens(self, data: Texts, split: str) -> Tokens:
        """Tokens of the used rows of a split, made once."""
        rows = self.rows(data, split)
        if split not in self._tokens:
            first, second = (
                None if texts is None else [texts[split][i] for i in rows] for texts in (data.first, data.second)
            )
            tokenizer = load_tokenizer(self.config.model.name)
            self._tokens[split] = tokenize(tokenizer, first or [], second, max_length=self.config.max_length)
        return self._tokens[split]

    def labels(self, data: Texts, split: str) -> Tensor:
        """Labels of the used rows of a split."""
        return data.label[split][torch.from_numpy(self.rows(data, split))]

    def build(self, config: TextConfig, data: Texts) -> nn.Module:
        """Load or draw the backbone, draw the head, and freeze what is not tuned."""
        self.prepare(data)
        spec = self._spec()  # what is misspelt is said before anything is loaded
        if config.model.name in BASELINES:
            from .baselines import BASELINE_MODELS

            return BASELINE_MODELS[config.model.name](data, self._rows, self.monitor)
        backbone = load_backbone(config.model)
        largest = max(int(self.tokens(data, split).ids.max(initial=0)) for split in SPLITS)
        check_fits(backbone, config.model.name, max_length=config.max_length, largest=largest)
        head = self.head(backbone, data)
        model = TextModel(backbone, head, pooling=config.model.pooling, frozen=config.tuning == "head")
        if config.tuning != "full":
            model.remember_backbone()
            model.backbone.requires_grad_(False)
        if config.delta.start is not None:
            load_delta(model, config.delta.start, train=config.tuning == "delta")
        elif spec is not None:
            self._attach(model, spec, data)
        if config.subspace.folder is not None:
            from .intrinsic import PointModel

            handle = deltas.handles(backbone)[DELTA]
            model = PointModel(backbone, head, handle, config.subspace, pooling=config.model.pooling)
        self._model, self._pooled = model, {}
        return model

    def head(self, backbone: Any, data: Texts) -> nn.Module:
        """Head to train, or frozen label vectors."""
        kind, label = self.config.model.head, self.labels(data, "train")
        if kind == "trained":
            return make_head(backbone, label, len(data.labels), dropout=self.config.model.dropout)
        reader = TextModel(backbone, nn.Identity(), pooling=self.config.model.pooling)
        return label_head(kind, reader, data, self.tokens(data, "train"), label, load_tokenizer(self.config.model.name))

    def _attach(self, model: TextModel, spec: deltas.Delta | deltas.Combination, data: Texts) -> None:
        """Put the delta into the backbone, and choose by the first training batches what a sparse one keeps."""
        places = count()

        def loss() -> Tensor:
            batch = self.train_batch(data, 0, next(places) % self.n_batches(data), self.config.seed)
            return self.step(model, batch)[0]

        try:
            handle = deltas.attach(model.backbone, spec, name=DELTA)
            if any(isinstance(m, deltas.SparseAdapter) and m.score == "snip" for m in methods_of(spec)):
                deltas.prune(handle, loss)
        except deltas.DeltaError as error:
            raise UsageError(f"--delta {self.config.delta.name}: {error}") from None

    def _spec(self) -> deltas.Delta | deltas.Combination | None:
        config = self.config.delta
        if config.start is not None:
            return stored_spec(config.start, config.name)
        try:
            return None if config.name is None else deltas.parse(config.name, config.options)
        except (deltas.DeltaError, TypeError, ValueError) as error:
            raise UsageError(f"--delta {config.name}: {error}") from None

    def sources(self) -> dict[str, str]:
        """SHA-256 of the backbone, of the delta that it starts from, and of the subspace, those that are there."""
        config = self.config
        digest = None if config.model.name in BASELINES else backbone_sha256(config.model)
        found = {} if digest is None else {f"the backbone {config.model.name}": digest}
        if config.delta.start is not None and (digest := stored_sha256(config.delta.start)) is not None:
            found[f"the delta {config.delta.start}"] = digest
        if config.subspace.folder is not None:
            files = [Path(config.subspace.folder) / name for name in SUBSPACE_FILES]
            if all(path.is_file() for path in files):
                found[f"the subspace {config.subspace.folder}"] = files_sha256(files)
        return found

    def frozen(self, model: nn.Module) -> frozenset[str]:
        """Names of the tensors of a frozen pretrained backbone: checkpoints do without them."""
        if self.config.tuning == "full" or self.config.model.random or not isinstance(model, TextModel):
            return frozenset()
        backbone = model.backbone
        trained = {name for name, p in backbone.named_parameters(remove_duplicate=False) if p.requires_grad}
        trained |= set(statistics(backbone.named_modules()))
        if self.config.delta.start is not None:  # the run must not depend on the folder that it started from
            trained |= set(deltas.handles(backbone)[DELTA].owned())
        kept = {f"backbone.{name}" for name in model.pretrained - trained if not name.endswith("_extra_state")}
        return frozenset(kept | {name for name in model.state_dict() if name.startswith("codec.")})

    @property
    def exports(self) -> str | None:
        """Name of the folder in that of the run that holds the delta, where one is tuned."""
        return "delta" if self.config.tuning == "delta" else None

    def export(self, model: nn.Module, data: Texts, folder: Path) -> None:
        """Fill the folder with the delta, for ``deltas.load`` on a backbone without a pooling layer."""
        from .intrinsic import PointModel, write_point, write_solution

        assert isinstance(model, TextModel)
        if isinstance(model, PointModel):
            model.settle()
        deltas.handles(model.backbone)[DELTA].save(folder)
        if isinstance(model, PointModel):
            write_point(model, folder)
        elif self.config.model.head != "trained":
            write_solution(deltas.handles(model.backbone)[DELTA], folder)

    def pooled(self, model: TextModel, data: Texts, split: str) -> Tensor:
        """Pooled states of a frozen backbone, computed once: (N, d)."""
        if split not in self._pooled:
            with torch.no_grad():
                self._pooled[split] = by_length(self.tokens(data, split), model.pooled, model)
        return self._pooled[split]

    def n_batches(self, data: Texts) -> int:
        """Count the batches of an epoch."""
        if self.config.model.name in BASELINES:
            return 0
        return -(-len(self.rows(data, "train")) // self.config.train.batch_size)

    def train_batch(self, data: Texts, epoch: int, index: int, seed: int) -> dict[str, Tensor]:
        """Take a batch of an order that is a function of seed and epoch, padded to its longest text."""
        label, size = self.labels(data, "train"), self.config.train.batch_size
        grouped = (
            self.config.group_by_length and self.config.tuning != "head"
        )  # a head reads states, which need no padding
        lengths = self.tokens(data, "train").lengths if grouped else None
        places = epoch_batch(index, len(label), size, (seed, epoch), lengths)
        batch = {"label": label[torch.from_numpy(places)]}
        if self.config.tuning == "head":
            assert self._model is not None
            self.pooled(self._model, data, "valid")  # here, and not where the manifold is watched
            return {"pooled": self.pooled(self._model, data, "train")[torch.from_numpy(places)], **batch}
        return {**self.tokens(data, "train").batch(places), **batch}

    def step(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Softmax loss, or the mean squared error in units of the labels' variance."""
        assert isinstance(model, TextModel)
        output, label = model(batch), batch["label"]
        if label.is_floating_point():
            return ((output[:, 0] - label) / model.head.scale).square().mean(), {}
        return F.cross_entropy(output, label), {}

    def predict(self, model: nn.Module, data: Texts, split: str) -> Tensor:
        """Outputs for the used rows of a split, float32 (N, C) or (N, 1)."""
        if not isinstance(model, TextModel):
            found: Tensor = model(split)
            return found
        if self.config.tuning == "head":
            device = next(model.head.parameters()).device
            return torch.cat(
                [model.head(part.to(device)).cpu() for part in self.pooled(model, data, split).split(4096)]
            )
        return by_length(self.tokens(data, split), model, model)

    def evaluate(self, model: nn.Module, data: Texts, split: str) -> dict[str, float]:
        """Accuracy, F1 and Matthews correlation, or Pearson and Spearman correlation; the one to monitor first."""
        output = self.predict(model, data, split).detach().double().numpy()
        found = scores(data.kind, self.labels(data, split).numpy(), output, len(data.labels))
        return {self.monitor: found[self.monitor], **found}

    def param_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """Trained matrices with the weight decay of the configuration, other parameters without; the head at its own rate."""
        groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
        for name, p in model.named_parameters():
            if p.requires_grad:
                decayed = p.ndim > 1 and not hasattr(p, "manifold")
                groups.setdefault((name.startswith("head."), decayed), []).append(p)
        own = {} if self.config.head_lr is None else {"lr": self.config.head_lr}
        return [
            {"params": params, **({} if decayed else {"weight_decay": 0.0}), **(own if head else {})}
            for (head, decayed), params in groups.items()
        ]
