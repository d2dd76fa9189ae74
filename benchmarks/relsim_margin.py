"""Similarity-margin softmax against plain softmax in relation classification: SemEval-2010 Task 8 and KBP37.

    python -m benchmarks.relsim_margin --folder FOLDER [--data SemEval2010-Task8,KBP37] [--seeds 0,1,2,3,4]

A linear head on marker features of a frozen MiniLM. Arms: plain softmax; margins from divergences of fact
distributions of the training arguments; from smoothed count divergences of them; and equal margins, which tell a
margin from its similarity; logistic regression on TF-IDF stands beside them. Each arm has six trials on validation
data: plain ones over learning rate and weight decay, the others at the best of these over weight and temperature of
the margin. Then fresh seeds, and 95 % t intervals of the paired differences. Trials, scores and predictions are kept
in FOLDER. Results go to benchmarks/results/relsim_margin.json. One thread; data from the folder that HYREL_DATA
names.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from tasks.argv import parse_seeds
from tasks.config import TrainConfig
from tasks.data.load import load
from tasks.data.sentences import RelationSentences
from tasks.optim import build_optimizers, schedule_factor
from tasks.relation_classification.config import MarginConfig, RelationClassificationConfig
from tasks.relation_classification.features import spans
from tasks.relation_classification.scorer import official_macro_f1
from tasks.relation_classification.task import LinearHead, RelationClassification

from .common import asked, row, save
from .paired import half_width, holm, paired_row

ARMS = ("none", "facts", "counts", "uniform")
NAMES = {
    "none": "plain softmax",
    "facts": "margin by fact distributions",
    "counts": "margin by counts",
    "uniform": "equal margins",
}
RATES, DECAYS = (3e-4, 1e-3, 3e-3), (0.01, 1.0)
WEIGHTS, TEMPERATURES = (1.0, 4.0, 16.0), (2.0, 10.0)
EVEN = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)  # equal margins know no temperature: six weights
TUNING_SEED = 100

Config = RelationClassificationConfig


def train(config: Config, data: RelationSentences, task: RelationClassification) -> LinearHead:
    """Train in memory by the task's own batches and loss, to the end: the schedule falls to nothing."""
    torch.manual_seed(config.seed)
    model, batches = task.build(config, data), task.n_batches(data)
    (optimizer,) = build_optimizers(task.param_groups(model), config.train)
    for step in range(config.train.epochs * batches):
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * schedule_factor(config.train, step, config.train.epochs * batches)
        optimizer.zero_grad()
        task.step(model, task.train_batch(data, step // batches, step % batches, config.seed))[0].backward()
        optimizer.step()
    return model.eval()


def configure(arm: str, lr: float, decay: float, weight: float, temperature: float) -> Config:
    plan = TrainConfig(
        epochs=12, batch_size=256, lr=lr, optimizer="adamw", weight_decay=decay, schedule="linear", clip=None
    )
    return Config(train=plan, margin=MarginConfig(arm, weight, temperature), seed=TUNING_SEED)


def tuned(arm: str, data: RelationSentences, folder: Path, plain: Config | None) -> Config:
    """The best of six trials on validation data; every trial is a line of a kept file."""
    if plain is None:
        trials = [configure(arm, lr, decay, 0.0, 1.0) for lr, decay in product(RATES, DECAYS)]
    else:
        grid = [(w, 1.0) for w in EVEN] if arm == "uniform" else list(product(WEIGHTS, TEMPERATURES))
        trials = [configure(arm, plain.train.lr, plain.train.weight_decay, *pair) for pair in grid]
    path, scores = folder / f"trials-{data.name}-{arm}.json", []
    if path.exists():
        scores = json.loads(path.read_text("utf-8"))
    else:
        for trial in trials:
            task = cached(trial, data)
            scores.append(task.evaluate(train(trial, data, task), data, "valid")["macro_f1"])
        path.write_text(json.dumps(scores), "utf-8")
    best = trials[int(np.argmax(scores))]
    print(
        data.name, arm, [round(s, 4) for s in scores], best.train.lr, best.train.weight_decay, best.margin, flush=True
    )
    return best


_TASKS: dict[str, RelationClassification] = {}


def cached(config: Config, data: RelationSentences) -> RelationClassification:
    """A task with this configuration and the features that an earlier one has read."""
    task = RelationClassification(config)
    if data.name in _TASKS:
        task._features = _TASKS[data.name]._features
    else:
        task.features(data)
    _TASKS[data.name] = task
    return task


def scores(config: Config, data: RelationSentences, seed: int, folder: Path) -> dict[str, Any]:
    """Test scores and predictions of one seed."""
    arm = config.margin.source
    path = folder / f"test-{data.name}-{arm}-{seed}.json"
    if not path.exists():
        started = time.process_time()
        config = replace(config, seed=seed)
        task = cached(config, data)
        model = train(config, data, task)
        with torch.no_grad():
            found: dict[str, Any] = dict(task.evaluate(model, data, "test"))
            found["predicted"] = task.predict(model, data, "test").tolist()
        path.write_text(json.dumps(found), "utf-8")
        print(data.name, arm, seed, found["macro_f1"], f"{time.process_time() - started:.1f} s", flush=True)
    return dict(json.loads(path.read_text("utf-8")))


def predictions(data: RelationSentences, seeds: list[int], folder: Path) -> list[NDArray[np.int64]]:
    """Predicted classes of the test sentences by the tuned plain head, one array a seed."""
    config = tuned("none", data, folder, None)
    return [np.array(scores(config, data, seed, folder)["predicted"]) for seed in seeds]


def tfidf(data: RelationSentences, folder: Path) -> dict[str, float]:
    """Test scores of logistic regression on TF-IDF of words and pairs of words, those between the arguments apart."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline, make_union

    path = folder / f"tfidf-{data.name}.json"
    if not path.exists():
        between = TfidfVectorizer(preprocessor=lambda m: m.between.lower(), ngram_range=(1, 2), sublinear_tf=True)
        whole = TfidfVectorizer(
            preprocessor=lambda m: spans(m)[0].lower(), ngram_range=(1, 2), min_df=2, sublinear_tf=True
        )
        model = make_pipeline(make_union(between, whole), SGDClassifier(loss="log_loss", alpha=1e-5, random_state=0))
        model.fit(data.sentences["train"], data.label["train"].numpy())
        found, right = model.predict(data.sentences["test"]), data.label["test"].numpy()
        key, proposed = ({str(n): data.labels[c] for n, c in enumerate(ids)} for ids in (right, found))
        scores = {"macro_f1": official_macro_f1(key, proposed), "accuracy": float((found == right).mean())}
        path.write_text(json.dumps(scores), "utf-8")
    return dict(json.loads(path.read_text("utf-8")))


def measure(name: str, seeds: list[int], folder: Path) -> list[dict[str, Any]]:
    data = load(name)
    most = data.label["train"].bincount().argmax()
    rows = [row(f"{name}: largest class, accuracy", float((data.label["test"] == most).double().mean()), "1")]
    rows += [row(f"{name}: TF-IDF, {metric}", value, "1") for metric, value in tfidf(data, folder).items()]
    plain = tuned("none", data, folder, None)
    found = {}
    for arm in ARMS:
        config = plain if arm == "none" else tuned(arm, data, folder, plain)
        found[arm] = [scores(config, data, seed, folder) for seed in seeds]
    for metric in ("macro_f1", "accuracy"):
        values = {arm: [one[metric] for one in found[arm]] for arm in ARMS}
        for arm in ARMS:
            mean = statistics.mean(values[arm])
            rows.append(row(f"{name}: {NAMES[arm]}, {metric}", mean, "1", n=len(seeds), half=half_width(values[arm])))
        for arm in ARMS[1:]:
            rows.append(paired_row(f"{name}: {NAMES[arm]} minus plain, {metric}", values[arm], values["none"]))
        rows.append(paired_row(f"{name}: {NAMES['facts']} minus equal, {metric}", values["facts"], values["uniform"]))
    right = {
        arm: (np.array([one["predicted"] for one in found[arm]]) == data.label["test"].numpy()).mean(0) for arm in ARMS
    }
    for arm in ARMS[1:]:
        # The seeds share one test set; this interval is over its sentences, each with its mean over the seeds.
        what = f"{name}: {NAMES[arm]} minus plain, accuracy over sentences"
        rows.append(paired_row(what, right[arm].tolist(), right["none"].tolist()))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where trials and scores are kept")
    parser.add_argument("--data", default="SemEval2010-Task8,KBP37")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.folder.mkdir(parents=True, exist_ok=True)
    seeds = parse_seeds(args.seeds)
    rows = [entry for name in args.data.split(",") for entry in measure(name, seeds, args.folder)]
    for question in {entry["what"].split(": ")[1] for entry in rows if "p" in entry}:
        holm([entry for entry in rows if "p" in entry and entry["what"].split(": ")[1] == question])
    for entry in rows:
        print(entry["what"], round(entry["value"], 4), entry["spread"])
    print(save("relsim_margin", asked("relsim_margin"), rows, threads=1))


if __name__ == "__main__":
    main()
