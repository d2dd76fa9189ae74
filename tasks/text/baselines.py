"""What every model must beat: the majority class (or the mean), and TF-IDF with logistic regression (or ridge).

They are fitted when they are built, by scikit-learn, and then evaluated and saved as every other model of the task.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from torch import Tensor, nn

from tasks.data.text import Texts
from tasks.errors import UsageError

from .metrics import scores

__all__ = ["BASELINE_MODELS", "GRID", "Majority", "TfidfFeatures", "TfidfRegression"]

GRID = (0.3, 1.0, 3.0, 10.0, 30.0)  # inverse strengths of the penalty, of which the validation split chooses
_NEVER = -1e9  # logit of a class without a training row


class Majority(nn.Module):
    """Logarithms of the class frequencies of the training rows, or the mean of their labels, for every text."""

    output: Tensor

    def __init__(self, data: Texts, rows: Mapping[str, np.ndarray], monitor: str) -> None:
        super().__init__()
        label = data.label["train"][torch.from_numpy(rows["train"])]
        if data.kind == "regression":
            output = label.mean()[None]
        else:
            output = torch.bincount(label, minlength=len(data.labels)).double().div(len(label)).log().clamp(min=_NEVER)
        self.register_buffer("output", output.float())
        self.sizes = {split: len(part) for split, part in rows.items()}

    def forward(self, split: str) -> Tensor:
        """Outputs (N, C) or (N, 1) for the rows of a split."""
        return self.output.expand(self.sizes[split], -1).cpu()

    def outputs(self, first: list[str], second: list[str] | None) -> Tensor:
        """Outputs (N, C) or (N, 1) for new texts, or pairs."""
        return self.output.expand(len(first), -1).cpu()


def _fitted(texts: list[str]) -> Any:
    """Terms of two texts or more; where there are none, all."""
    try:
        return _vectorizer(2).fit(texts)
    except ValueError:  # no terms remain
        try:
            return _vectorizer(1).fit(texts)
        except ValueError as error:
            raise UsageError(f"--model tfidf: {error}") from None


def _vectorizer(least: int) -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    shared = {"sublinear_tf": True, "min_df": least, "lowercase": True}
    return make_union(
        TfidfVectorizer(analyzer="word", ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", **shared),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), **shared),
    )


class TfidfFeatures:
    """TF-IDF of words and pairs of words, and of 3 to 5 characters; fitted to the training rows.

    Of a pair with vectors u and v: ``|u - v|``, ``u * v`` and the inner product ``u.v``.
    """

    def __init__(self, first: list[str], second: list[str] | None) -> None:
        self.vectorizer = _fitted(first + (second or []))

    def __call__(self, first: list[str], second: list[str] | None) -> sp.csr_matrix:
        """Features (N, V) of texts, or of pairs."""
        u = self.vectorizer.transform(first)
        if second is None:
            return sp.csr_matrix(u)
        v = self.vectorizer.transform(second)
        product = u.multiply(v)
        return sp.csr_matrix(sp.hstack([abs(u - v), product, sp.csr_matrix(product.sum(1))]))


class TfidfRegression(nn.Module):
    """Logistic regression, or ridge, on TF-IDF features; the strength of its penalty is chosen on the validation rows.

    Attributes
    ----------
    weight, bias : (C, V) and (C,), of the logits; (1, V) and (1,) of a regression
    c : inverse strength of the penalty that was chosen
    """

    c: Tensor
    weight: nn.Parameter
    bias: nn.Parameter

    def __init__(self, data: Texts, rows: Mapping[str, np.ndarray], monitor: str) -> None:
        super().__init__()

        def chosen(split: str) -> tuple[list[str], list[str] | None]:
            first, second = (
                [part[split][i] for i in rows[split]] if part else None for part in (data.first, data.second)
            )
            return first or [], second

        self.tfidf = TfidfFeatures(*chosen("train"))
        self.features = {split: self.tfidf(*chosen(split)) for split in rows}
        label = {split: data.label[split].numpy()[part] for split, part in rows.items()}
        fit = _ridge if data.kind == "regression" else _logistic
        best = float("-inf")
        for c in GRID:
            weight, bias = fit(self.features["train"], label["train"], c, len(data.labels))
            output = self.features["valid"] @ weight.T + bias
            score = scores(data.kind, label["valid"], output, len(data.labels))[monitor]
            if score > best:
                best, kept = score, (weight, bias, c)
        self.weight, self.bias = (nn.Parameter(torch.from_numpy(v).float(), requires_grad=False) for v in kept[:2])
        self.register_buffer("c", torch.tensor(kept[2]))

    def forward(self, split: str) -> Tensor:
        """Outputs (N, C) or (N, 1) for the rows of a split."""
        return self._outputs(self.features[split])

    def outputs(self, first: list[str], second: list[str] | None) -> Tensor:
        """Outputs (N, C) or (N, 1) for new texts, or pairs."""
        return self._outputs(self.tfidf(first, second))

    def _outputs(self, features: sp.csr_matrix) -> Tensor:
        weight, bias = (value.detach().cpu().double().numpy() for value in (self.weight, self.bias))
        return torch.from_numpy(features @ weight.T + bias)


def _logistic(x: sp.csr_matrix, y: np.ndarray, c: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    weight, bias = np.zeros((classes, x.shape[1])), np.full(classes, _NEVER)
    seen = np.unique(y)
    if len(seen) == 1:
        bias[seen] = 0.0
        return weight, bias
    model = LogisticRegression(C=c, max_iter=2000).fit(x, y)
    if len(seen) == 2:  # one logit, of the second of the two
        weight[seen[1]], bias[seen] = model.coef_[0], [0.0, model.intercept_[0]]
    else:
        weight[seen], bias[seen] = model.coef_, model.intercept_
    return weight, bias


def _ridge(x: sp.csr_matrix, y: np.ndarray, c: float, classes: int) -> tuple[np.ndarray, np.ndarray]:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / c, solver="sparse_cg", max_iter=1000, tol=1e-6).fit(x, y.astype(np.float64))
    return model.coef_[None], np.array([model.intercept_])


BASELINE_MODELS: dict[str, Callable[[Texts, Mapping[str, np.ndarray], str], nn.Module]] = {
    "majority": Majority,
    "tfidf": TfidfRegression,
}
