"""What ``hyrel run``, ``resume`` and ``compare`` call. Imports torch only inside, so that ``--help`` is fast."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .comparison import Table, compare_results
from .config import (
    config_hash,
    describe_options,
    differences,
    load_recipe,
    make_config,
    native,
    require_seed,
    sections_as_mappings,
    to_dict,
)
from .errors import UsageError
from .folder import RunFolder
from .registry import lookup, named

if TYPE_CHECKING:
    from .trained import Trained

__all__ = [
    "TASKS",
    "Result",
    "compare",
    "configure",
    "described",
    "find_recipe",
    "found_from_start",
    "load",
    "make_task",
    "option_help",
    "read_data",
    "recipes",
    "resume",
    "run",
]

# task -> where its configuration is (light) and where the task itself is (imports torch)
TASKS: dict[str, tuple[str, str]] = {
    "convert": ("tasks.convert.config:ConvertConfig", "tasks.convert.task:Conversion"),
    "graph": ("tasks.graph.config:GraphConfig", "tasks.graph.task:GraphTask"),
    "hierarchy": ("tasks.hierarchy.config:HierarchyConfig", "tasks.hierarchy.task:HierarchyEmbedding"),
    "kg": ("tasks.kg.config:KGConfig", "tasks.kg.task:KnowledgeGraphCompletion"),
    "pretrain": ("tasks.pretrain.config:PretrainConfig", "tasks.pretrain.task:Pretraining"),
    "probing": ("tasks.probing.config:ProbingConfig", "tasks.probing.task:Probing"),
    "re": (
        "tasks.relation_classification.config:RelationClassificationConfig",
        "tasks.relation_classification.task:RelationClassification",
    ),
    "similarity": ("tasks.similarity.config:SimilarityConfig", "tasks.similarity.task:RelationSimilarityTask"),
    "subspace-fit": ("tasks.subspace.fit_config:FitConfig", "tasks.subspace.fit:SubspaceFit"),
    "text": ("tasks.text.config:TextConfig", "tasks.text.task:TextTask"),
    "translation": ("tasks.translation.config:TranslationConfig", "tasks.translation.task:Translation"),
}


@dataclass(frozen=True)
class Result:
    """A finished run: its folder, and what its ``result.json`` holds."""

    folder: Path
    values: Mapping[str, Any]

    @property
    def metrics(self) -> dict[str, dict[str, float]]:
        """Metrics by split, for example ``metrics["test"]["mrr"]``."""
        return self.values["metrics"]


def configure(
    task: str, *, recipe: str | Path | None = None, overrides: Mapping[str, Any] | None = None, args: Sequence[str] = ()
) -> Any:
    """Configuration of `task`: its defaults, then a recipe, then `overrides`, then command-line `args`."""
    cls = named(lookup(TASKS, task, kind="task")[0])
    base: dict[str, Any] = {}
    over = sections_as_mappings(cls, overrides or {})
    if recipe is not None:
        base = load_recipe(find_recipe(task, recipe))[0]
        owner = base.pop("task", task)
        if owner != task:
            raise UsageError(f"{recipe} is a configuration of task {owner!r}, not of {task!r}")
    return make_config(
        cls, overrides=_merge(sections_as_mappings(cls, base), over), args=args, prog=f"hyrel run {task}"
    )


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = _merge(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def recipes() -> dict[str, Path]:
    """Shipped recipes by name, ``kg/wn18rr-32``."""
    root = Path(__file__).parent / "recipes"
    return {f"{path.parent.name}/{path.stem}": path for path in sorted(root.glob("*/*.yaml"))}


def find_recipe(task: str, recipe: str | Path) -> Path:
    """Path of a recipe given as a file or by its shipped name, with or without the task."""
    path = Path(recipe)
    if path.is_file():
        return path
    shipped = recipes()
    name = str(recipe).removesuffix(".yaml")
    names = [name, f"{task}/{name}"]
    if found := next((name for name in names if name in shipped), None):
        return shipped[found]
    lookup(shipped, str(recipe), kind="recipe (and no such file)")
    raise AssertionError


def run(
    task: str,
    *,
    recipe: str | Path | None = None,
    seed: int | None = None,
    runs: str | Path = "runs",
    out: str | Path | None = None,
    data_dir: str | Path | None = None,
    quiet: bool = False,
    checkpoint_seconds: float = 60.0,
    args: Sequence[str] = (),
    **overrides: Any,
) -> Result:
    """Train and evaluate one configuration with one seed, or return the finished run of it.

    Parameters
    ----------
    task : name of the task, for example ``"kg"``
    recipe : file or shipped name of a configuration to start from
    seed : overrides the configuration's
    runs : folder below which ``TASK-DATA-HASH/seedN`` is made
    out : run folder to use instead
    data_dir : folder of the data sets
    quiet : show no progress
    checkpoint_seconds : a checkpoint is written at every evaluation and at least this often
    **overrides : fields of the task's configuration, ``data="WN18RR", model={"dim": 32}``

    Raises
    ------
    UsageError, RunError : see ``tasks.errors``
    """
    if isinstance(data := overrides.get("data"), Path):  # ./name, where the name alone would be that of a data set
        overrides["data"] = str(data) if data.is_absolute() else f"./{data}"
    config = configure(task, recipe=recipe, overrides=overrides, args=args)
    seed = native(seed)
    if seed is not None:
        require_seed(seed)
        config = replace(config, seed=seed)
    if out is None:
        digest = config_hash(task, to_dict(config))[:8]
        name = Path(config.data).resolve().name
        out = Path(runs) / f"{task}-{name}-{digest}" / f"seed{config.seed}"
    return _fit(
        task, config, RunFolder(Path(out)), data_dir=data_dir, quiet=quiet, checkpoint_seconds=checkpoint_seconds
    )


def make_task(task: str, config: Any) -> Any:
    """The task of that name with a configuration, as the runner drives it."""
    return named(lookup(TASKS, task, kind="task")[1])(config)


def read_data(task: Any, data_dir: str | Path | None, *, instead: str | Path | None = None) -> Any:
    """Read what the configuration of a task names, or what is given instead.

    Raises
    ------
    UsageError : it is not there, or no data of the task's kind.
    """
    from .data.load import load as load_data
    from .data.sets import DATA

    config = task.config
    place = config.data if instead is None else str(instead)
    data = load_data(place, data_dir, kind=task.kind, apart_from=getattr(config, "apart_from", None))
    if not isinstance(data, task.Data):
        known = ", ".join(name for name, entry in DATA.items() if entry.kind.split(",")[0] == task.kind)
        own = "" if task.kind == "re" else ", or files of yours"
        raise UsageError(f"{place} is no {task.takes}, which the task {task.name} takes: --data {known}{own}")
    return data


def _fit(
    task: str,
    config: Any,
    folder: RunFolder,
    *,
    data: str | Path | None = None,
    data_dir: str | Path | None,
    quiet: bool,
    checkpoint_seconds: float,
) -> Result:
    from .runner import fit

    built = make_task(task, config)
    try:
        read = read_data(built, data_dir, instead=data)
    except UsageError:  # data that is no longer there takes nothing from a finished run
        if folder.finished and not differences(folder.config(), {"task": task, **to_dict(config)}):
            return Result(folder.path, folder.result())
        raise
    values = fit(built, read, folder, seed=config.seed, quiet=quiet, checkpoint_seconds=checkpoint_seconds)
    return Result(folder.path, values)


def resume(
    folder: str | Path,
    *,
    data: str | Path | None = None,
    data_dir: str | Path | None = None,
    quiet: bool = False,
    checkpoint_seconds: float = 60.0,
) -> Result:
    """Go on with a run that was stopped, to the result it would have had; a finished run of the same data is returned.

    Parameters
    ----------
    folder : of the run, with its ``config.yaml``
    data : the same data, where it now lies elsewhere
    data_dir, quiet, checkpoint_seconds : as in :func:`run`

    Raises
    ------
    UsageError : no folder of a run, or data or a pretrained model that has changed since it was started.
    RunError : as in :func:`run`.
    """
    run_folder = RunFolder(Path(folder))
    tree = run_folder.config()
    task = tree.pop("task", None)
    if task is None:
        raise UsageError(f"{run_folder.path / 'config.yaml'} names no task; it was not written by hyrel")
    config = configure(task, overrides=tree)
    return _fit(
        task,
        config,
        run_folder,
        data=found_from_start(run_folder, config) if data is None else data,
        data_dir=data_dir,
        quiet=quiet,
        checkpoint_seconds=checkpoint_seconds,
    )


def found_from_start(folder: RunFolder, config: Any) -> str | None:
    """Path of a run's data for who stands elsewhere than where the run was begun; None where it is found as told."""
    from .data.sets import DATA

    return None if config.data in DATA else folder.elsewhere(config.data)


def load(folder: str | Path, *, data: str | Path | None = None, data_dir: str | Path | None = None) -> Trained:
    """Load the best model of a finished run: ``load(folder).model``, ``load(folder).predict(rows)``.

    The data it was trained on is read again, as that holds the names behind the numbers.

    Parameters
    ----------
    folder : of the run
    data : the same data, where it now lies elsewhere
    data_dir : folder of the data sets

    Raises
    ------
    UsageError : no finished run, or data, a pretrained model or a configuration that have changed since.
    RunError : damaged weights.
    """
    from .trained import load_trained

    return load_trained(folder, data=data, data_dir=data_dir)


def compare(
    folders: Iterable[str | Path], *, by: Sequence[str] = ("data", "model"), metric: str | None = None
) -> Table:
    """Table of finished runs, one row a configuration: number of seeds, mean, deviation, missing seeds, the best marked.

    Parameters
    ----------
    folders : of runs, or folders that hold some at any depth
    by : options whose values tell the rows apart, ``("data", "model.dim")``
    metric : of the test split; None for the first one of each task

    Raises
    ------
    UsageError : no finished run, or an option or metric that no run has.
    """
    if isinstance(folders, str | Path):
        folders = [folders]
    return compare_results([Path(folder) for folder in folders], by=by, metric=metric)


def described(place: str) -> str:
    """First line of the docstring of a configuration, without its full stop."""
    return (named(place).__doc__ or "").split("\n", 1)[0].rstrip(".")


def option_help(task: str) -> str:
    """Help text of a task's options."""
    cls = named(lookup(TASKS, task, kind="task")[0])
    return describe_options(cls, prog=f"hyrel run {task}")
