"""The majority class, and TF-IDF with logistic regression, against scikit-learn used directly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import accuracy_score
from sklearn.pipeline import make_pipeline, make_union

import tasks
from tasks.data.load import load
from tasks.text.baselines import GRID
from tasks.text.task import TextTask


def lines(folder: Path, split: str) -> list[list[str]]:
    return [line.split("\t") for line in (folder / f"{split}.tsv").read_text().strip().split("\n")]


def start(folder: Path, runs: Path, name: str, **options: Any) -> tasks.Result:
    return tasks.run("text", data=str(folder), runs=runs, quiet=True, model={"name": name}, **options)


def words() -> Any:
    return make_union(
        TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"\w+|[^\w\s]", sublinear_tf=True, min_df=2),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(3, 5), sublinear_tf=True, min_df=2),
    )


@pytest.mark.parametrize("classes", [2, 3])
def test_tfidf_equals_a_pipeline_of_scikit_learn(classes: int, toy: Path, tmp_path: Path) -> None:
    if classes == 3:  # a class without a word of its own
        for split in ("train", "valid", "test"):
            rows = [[text, label if i % 3 else "other"] for i, (text, label) in enumerate(lines(toy, split))]
            (toy / f"{split}.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    train, valid, test = (lines(toy, split) for split in ("train", "valid", "test"))
    best: tuple[float, Any] = (-1.0, None)
    for c in GRID:
        model = make_pipeline(words(), LogisticRegression(C=c, max_iter=2000))
        model.fit([text for text, _ in train], [label for _, label in train])
        score = accuracy_score([label for _, label in valid], model.predict([text for text, _ in valid]))
        best = max(best, (score, model), key=lambda pair: pair[0])
    result = start(toy, tmp_path / "runs", "tfidf")
    assert result.metrics["valid"]["accuracy"] == best[0]
    want = accuracy_score([label for _, label in test], best[1].predict([text for text, _ in test]))
    assert result.metrics["test"]["accuracy"] == want
    saved = load_file(result.folder / "model.safetensors")
    assert float(saved["c"]) == pytest.approx(best[1][-1].C)
    np.testing.assert_allclose(saved["weight"].numpy()[-1], best[1][-1].coef_[-1], rtol=1e-4, atol=1e-5)


def test_pairs_are_compared_and_ridge_gives_numbers(toy_pairs: Path, tmp_path: Path) -> None:
    result = start(toy_pairs, tmp_path / "runs", "tfidf")
    assert result.metrics["test"]["pearson"] > 0.8
    data = load(str(toy_pairs), kind="text")
    vectorizer = words().fit(data.first["train"] + data.second["train"])

    def features(split: str) -> np.ndarray:
        u, v = (vectorizer.transform(part[split]).toarray() for part in (data.first, data.second))
        return np.hstack([np.abs(u - v), u * v, (u * v).sum(1, keepdims=True)])

    c = float(load_file(result.folder / "model.safetensors")["c"])
    model = Ridge(alpha=1 / c).fit(features("train"), data.label["train"].double().numpy())
    want = np.corrcoef(model.predict(features("test")), data.label["test"].numpy())[0, 1]
    assert result.metrics["test"]["pearson"] == pytest.approx(want, abs=1e-4)


def test_the_majority_class_and_the_mean(toy: Path, toy_pairs: Path, tmp_path: Path) -> None:
    rows = [*lines(toy, "train"), ["more", "pos"]]
    (toy / "train.tsv").write_text("".join("\t".join(row) + "\n" for row in rows))
    result = start(toy, tmp_path / "runs", "majority")
    share = np.mean([label == "pos" for _, label in lines(toy, "test")])
    assert result.metrics["test"]["accuracy"] == share and result.metrics["test"]["mcc"] == 0.0
    saved = load_file(result.folder / "model.safetensors")["output"]
    np.testing.assert_allclose(saved.exp().numpy(), [80 / 161, 81 / 161], rtol=1e-6)
    mean = start(toy_pairs, tmp_path / "runs", "majority")
    assert mean.metrics["test"] == {"spearman": 0.0, "pearson": 0.0}
    assert float(load_file(mean.folder / "model.safetensors")["output"]) == pytest.approx(1.5)


def test_a_baseline_has_a_result_like_every_other_run(toy: Path, tmp_path: Path) -> None:
    result = start(toy, tmp_path / "runs", "tfidf", shots=20)
    assert result.values["best_step"] == 0 and result.values["params"]["trainable"] == 0
    assert result.values["data"]["split"] == "own; 20 training rows a class"
    assert json.loads((result.folder / "result.json").read_text()) == result.values
    assert start(toy, tmp_path / "runs", "tfidf", shots=20).values == result.values  # finished: read, not run again
    for folder in (result.folder / "checkpoints").iterdir():
        assert folder.name in ("latest", "step-00000000")


def test_classes_that_few_shots_never_show_are_never_predicted(tmp_path: Path) -> None:
    from tasks.text.baselines import _logistic

    draw = np.random.default_rng(0)
    x, y = draw.normal(size=(40, 3)), np.repeat([0, 3], 20)
    import scipy.sparse as sp

    weight, bias = _logistic(sp.csr_matrix(x), y, 1.0, 5)
    assert set(np.argmax(x @ weight.T + bias, 1)) <= {0, 3}
    weight, bias = _logistic(sp.csr_matrix(x), np.zeros(40, int), 1.0, 5)
    assert set(np.argmax(x @ weight.T + bias, 1)) == {0}
    assert TextTask.kind == "text"


@pytest.mark.parametrize("texts", [("alpha\tone", "beta\ttwo"), ("alpha\tone", "beta\ttwo", "gamma\ttwo")])
def test_tfidf_of_texts_without_a_common_term_takes_all_terms(texts: tuple[str, ...], tmp_path: Path) -> None:
    folder = tmp_path / "few"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.tsv").write_text("\n".join(texts) + "\n")
    assert start(folder, tmp_path / "runs", "tfidf").metrics["test"]["accuracy"] == 1.0
