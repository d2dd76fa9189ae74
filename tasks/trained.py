"""Finished runs loaded again: their model, and what it says of new input."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from .api import configure, found_from_start, make_task, read_data
from .checkpoint import frozen_tensors, load_weights, restore_rng, rng_state
from .config import config_hash, to_dict
from .errors import UsageError
from .folder import RunFolder
from .process import seed_everything
from .registry import lookup, named
from .sources import changed_inputs

__all__ = ["PREDICTORS", "TAKE_EMPTY", "Trained", "load_trained"]

Predictor = Callable[..., list[dict[str, Any]]]

# task -> what answers rows of text: (task, model, data, rows, top=) to a dictionary for each answer
PREDICTORS: dict[str, str] = {
    "graph": "tasks.graph.predict:predict_nodes",
    "kg": "tasks.kg.predict:predict_triples",
    "re": "tasks.relation_classification.predict:predict_relations",
    "text": "tasks.text.predict:predict_texts",
    "translation": "tasks.translation.predict:predict_translations",
}
TAKE_EMPTY = frozenset({"translation"})  # whose answers stand line by line beside the rows, empty ones too


@dataclass(frozen=True)
class Trained:
    """The best model of a finished run, in evaluation mode, with all it was made of.

    Attributes
    ----------
    folder : of the run
    task : its task, as the runner drives it
    model : on the CPU; ``trained.model.to("cuda")`` moves it, and predictions with it
    data : what it was trained on, with the names behind its numbers
    values : what ``result.json`` holds
    """

    folder: Path
    task: Any
    model: nn.Module
    data: Any
    values: dict[str, Any]

    def predict(self, rows: Sequence[str | int | Sequence[str | int]], *, top: int = 10) -> list[dict[str, Any]]:
        """What the model says of new input, a dictionary for each answer, in the order of the rows.

        ==============  ==========================================  ========================================================
        task            a row                                       answers
        ==============  ==========================================  ========================================================
        ``text``        a text, or two                              label and its probability, or the number
        ``kg``          head, relation, tail, one of them ``?``     the `top` best, those known from the data marked;
                        or none                                     the score alone where nothing is asked
        ``graph``       a node; or two nodes of a link prediction   class and probability; score of an edge, and if known
        ``re``          a sentence with ``<e1> </e1> <e2> </e2>``   relation and its probability
        ``translation`` a line                                      its translation
        ==============  ==========================================  ========================================================

        Parameters
        ----------
        rows : a string each, or its parts; in a string the parts stand between tabs. Nodes without names are numbers.
        top : most answers to a question of a knowledge graph

        Raises
        ------
        UsageError : a task that answers nothing, a row that is no question of it (which, and why), an unknown name (and the
            nearest one).
        """
        if isinstance(rows, str):
            raise UsageError(f"rows are several, got one string {rows[:60]!r}; give a list")
        if not isinstance(top, int) or isinstance(top, bool) or top < 1:
            raise UsageError(f"top is a whole number from 1, got {top!r}")
        predictor: Predictor = named(lookup(PREDICTORS, self.task.name, kind="task that predicts"))
        parts = [_parts(row) for row in rows]
        training = self.model.training
        self.model.eval()
        try:
            return predictor(self.task, self.model, self.data, parts, top=top) if parts else []
        finally:
            self.model.train(training)


def _parts(row: str | int | Sequence[str | int]) -> tuple[str, ...]:
    """Parts of a row, as text."""
    if isinstance(row, str):
        return tuple(row.split("\t"))
    return tuple(map(str, row)) if isinstance(row, Iterable) else (str(row),)


def load_trained(folder: str | Path, *, data: str | Path | None = None, data_dir: str | Path | None = None) -> Trained:
    """See :func:`tasks.load`."""
    run = RunFolder(Path(folder))
    tree = run.config()
    name = tree.pop("task")
    config = configure(name, overrides=tree)
    if not run.finished:
        raise UsageError(f"{folder} is not finished; go on with: hyrel resume {folder}")
    values = run.result()
    if values["config_hash"] != config_hash(name, to_dict(config)):
        raise UsageError(f"{run.path / 'config.yaml'} was changed since the run finished; change it back")
    task = make_task(name, config)
    read = read_data(task, data_dir, instead=found_from_start(run, config) if data is None else data)
    if changed := changed_inputs(task, read, values["data"]["sha256"], values.get("sources", {})):
        raise UsageError(f"{' and '.join(changed)} changed since {folder} was trained: its model is of the old content")
    before = rng_state()
    try:
        seed_everything(config.seed)  # a frozen random backbone is drawn, not stored
        model = task.build(config, read)
    finally:
        restore_rng(before)
    load_weights(run.path / "model.safetensors", model, frozen_tensors(task, model))
    return Trained(run.path, task, model.eval(), read, values)
