"""Link prediction with the shipped recipes: Lorentz scorers, their twins and their flat limit in both protocols.

    python -m benchmarks.kg [--data WN18RR,FB15k-237] [--models hybonet,mure,flat] [--seeds 0,1,2] [--runs runs]
                            [--protocol paper|standard|both] [--epochs N] [--controls-seeds SEEDS]
                            [--controls-epochs EPOCHS] [--epochs-of MODEL=EPOCHS ...]

``--data`` takes data sets that have a recipe at dimension 32, or names of recipes. A model is a scorer, ``hybonet_space``
(the radius bounded as in the paper's equation) or ``flat`` (that at k = 1e6), with options after colons:
``hybonet:bound=space:k=10``. Models are trained as the recipe says (``paper``: selected by its metric, in the protocol of
the published numbers) or selected by the standard protocol with training triples alone filtered from the negatives
(``standard``); each is measured in both. The first model of the list has ``--seeds``, the others ``--controls-seeds`` if
given, and of ``--controls-epochs`` the number with the best validation score of the first seed: every trial is in the file. A
finished or interrupted run in the runs folder is used or resumed. With two common seeds or more the paired differences to
twin and flat limit are given, with 95 % t intervals, Holm-adjusted over the data sets of the
command.
Results go to benchmarks/results/kg_DATA.json. One thread. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from tasks import Result, run
from tasks.api import recipes
from tasks.argv import parse_seeds
from tasks.config import load_recipe
from tasks.kg.scorers import SCORERS, TWINS

from .common import asked, row, save
from .paired import holm, paired_row

RECIPES = {"WN18RR": "wn18rr-32", "FB15k-237": "fb15k237-32"}
METRICS = ("paper_mrr", "paper_hits@1", "paper_hits@3", "paper_hits@10", "mrr", "hits@1", "hits@3", "hits@10")
COMPARED = ("paper_mrr", "mrr")
SPACE: dict[str, Any] = {"scorer": "hybonet", "bound": "space"}
ALIASES: dict[str, dict[str, Any]] = {"hybonet_space": SPACE, "flat": {**SPACE, "k": 1e6}}
# What a control takes in the place of the recipe's: best of its trials in benchmarks.kg_tune.
CONTROLS: dict[tuple[str, str], dict[str, Any]] = {("fb15k237-32", "mure"): {"train": {"lr": 0.004}}}
STANDARD: dict[str, Any] = {"negatives": {"filter": "train"}, "monitor": "mrr"}


def model_options(name: str) -> dict[str, Any]:
    """Model section that a word of ``--models`` stands for."""
    scorer, *settings = name.split(":")
    if scorer not in ALIASES and scorer not in SCORERS:
        raise SystemExit(f"unknown model {scorer!r}; known: {', '.join([*SCORERS, *ALIASES])}")
    return {**ALIASES.get(scorer, {"scorer": scorer}), **dict(setting.split("=", 1) for setting in settings)}


def opponents(name: str, models: list[str]) -> list[str]:
    """Models of this list that a Lorentz one is compared with: its twin, and its flat limit."""
    scorer = model_options(name)["scorer"]
    if scorer not in TWINS or name == "flat":
        return []
    flat = ["flat"] if scorer == "hybonet" else []
    return [other for other in [TWINS[scorer], *flat] if other in models]


def seeds_of(name: str, options: argparse.Namespace) -> list[int]:
    """Seeds of a model: the first of the list has its own."""
    own = name == options.models.split(",")[0] or options.controls_seeds is None
    seeds: list[int] = options.seeds if own else options.controls_seeds
    return seeds


def train(recipe: str, name: str, protocol: str, options: argparse.Namespace) -> list[Result]:
    overrides: dict[str, Any] = {"model": model_options(name), **CONTROLS.get((recipe, name), {})}
    if protocol == "standard":
        overrides |= STANDARD
    control, seeds = name != options.models.split(",")[0], seeds_of(name, options)

    def one(seed: int, epochs: int | None) -> Result:
        told = {**overrides, "train": {**overrides.get("train", {}), "epochs": epochs}} if epochs else overrides
        return run("kg", recipe=f"kg/{recipe}", seed=seed, runs=options.runs, **told)

    if not control or not options.controls_epochs:
        return [one(seed, options.epochs) for seed in seeds]
    trials = {epochs: one(seeds[0], epochs) for epochs in options.epochs_of.get(name, options.controls_epochs)}
    metric = "paper_mrr" if protocol == "paper" else "mrr"
    scores = {epochs: result.metrics["valid"][metric] for epochs, result in trials.items()}
    best = max(scores, key=lambda epochs: scores[epochs])
    options.trials += [
        {"model": name, "recipe": recipe, "protocol": protocol, "epochs": epochs, f"valid {metric}": score}
        for epochs, score in scores.items()
    ]
    return [one(seed, best) for seed in seeds]


def measured(title: str, results: list[Result], published: dict[str, float]) -> list[dict[str, Any]]:
    """Rows of a model: every metric of the test split, and minutes."""
    rows = []
    for metric in METRICS:
        values = [result.metrics["test"][metric] for result in results]
        target = published.get(metric)
        rows.append(
            row(
                f"{title}: test {metric}",
                round(mean(values), 4),
                "0 to 1",
                n=len(values),
                sd=round(stdev(values), 4) if len(values) > 1 else None,
                reference=target,
                target=target,
                met=None if target is None else mean(values) >= target,
            )
        )
    minutes = [sum(result.values["seconds"].values()) / 60 for result in results]
    return [*rows, row(f"{title}: minutes of training and evaluation", round(mean(minutes), 1), "min", n=len(minutes))]


def note(recipe: str, scorer: str, models: list[str], trials: list[dict[str, Any]]) -> str:
    """How the controls came to their settings."""
    said = []
    for name in models[1:]:
        own = CONTROLS.get((recipe, name), {}).get("train", {})
        epochs = sorted({trial["epochs"] for trial in trials if trial["model"] == name})
        parts = [f"rate {own['lr']:g} by benchmarks.kg_tune"] if "lr" in own else []
        parts += [f"epochs the best of {', '.join(map(str, epochs))}"] if epochs else []
        rest = "all else" if parts else "all settings"
        said.append(f"{name}: {', '.join([*parts, f'{rest} those of the recipe, which were chosen for {scorer}'])}.")
    return f"{recipe}, controls: {' '.join(said)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="WN18RR,FB15k-237")
    parser.add_argument("--models", default="hybonet,mure,flat")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--controls-seeds", type=parse_seeds)
    parser.add_argument("--controls-epochs", type=parse_seeds, help="numbers by commas")
    parser.add_argument(
        "--epochs-of", nargs="*", default=[], metavar="MODEL=EPOCHS", help="instead, for single controls"
    )
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--protocol", choices=("paper", "standard", "both"), default="paper")
    parser.add_argument("--epochs", type=int)
    options = parser.parse_args()
    epochs_of = [pair.partition("=") for pair in options.epochs_of]
    if wrong := [name for name, equals, _ in epochs_of if not equals or name not in options.models.split(",")[1:]]:
        parser.error(f"--epochs-of {wrong[0]}: MODEL=EPOCHS, of the controls in --models")
    if epochs_of and options.controls_epochs is None:
        parser.error("--epochs-of goes with --controls-epochs, which holds for the other controls")
    options.epochs_of = {name: parse_seeds(given) for name, _, given in epochs_of}
    options.seeds, models = parse_seeds(options.seeds), options.models.split(",")
    options.trials = []
    protocols = ("paper", "standard") if options.protocol == "both" else (options.protocol,)
    tables: dict[str, list[dict[str, Any]]] = {}
    questions: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for data in options.data.split(","):
        recipe = RECIPES.get(data, data)
        config, numbers = load_recipe(Path(recipes()[f"kg/{recipe}"]))
        published = {number["metric"]: number["value"] for number in numbers}
        rows = tables[recipe] = []
        for protocol in protocols:
            results = {name: train(recipe, name, protocol, options) for name in models}
            for name in models:
                title = f"{config['data']}, {name}, dimension {config['model']['dim']}"
                title += ", standard protocol throughout" if protocol == "standard" else ""
                theirs = published if name == config["model"]["scorer"] and protocol == "paper" else {}
                rows += measured(title, results[name], theirs)
                for other, metric in ((o, m) for o in opponents(name, models) for m in COMPARED):
                    by_seed = [
                        {s: r.metrics["test"][metric] for s, r in zip(seeds_of(m, options), results[m], strict=True)}
                        for m in (name, other)
                    ]
                    common = [seed for seed in by_seed[0] if seed in by_seed[1]]
                    if len(common) < 2:
                        continue
                    pair = [[values[seed] for seed in common] for values in by_seed]
                    rows.append(paired_row(f"{title}: {metric} less that of {other}", *pair))
                    questions.setdefault((name, other, metric, protocol), []).append(rows[-1])
    for question in questions.values():
        holm(question)
    for recipe, rows in tables.items():
        trials = [trial for trial in options.trials if trial["recipe"] == recipe]
        said = note(recipe, model_options(models[0])["scorer"], models, trials)
        for r in rows:
            print(f"{r['what']}: {r['value']}" + (f" +- {r['spread']}" if r["spread"] else ""))
        print(
            save(
                f"kg_{recipe.removesuffix('-32').replace('-', '_')}",
                asked("kg"),
                rows,
                threads=1,
                trials=trials,
                note=said,
            )
        )


if __name__ == "__main__":
    main()
