"""Configurations: plain frozen dataclasses, one a task, filled from flags, Python or YAML through one parser."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import MISSING, Field, asdict, dataclass, field, fields, is_dataclass
from functools import lru_cache
from math import isfinite
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import yaml

from .argv import collect, name_sections, rename, switches
from .errors import UsageError
from .registry import did_you_mean

__all__ = [
    "ADDED",
    "TrainConfig",
    "config_hash",
    "describe_options",
    "differences",
    "flatten",
    "load_recipe",
    "make_config",
    "native",
    "require",
    "require_seed",
    "study_digest",
    "to_dict",
]

C = TypeVar("C")
UNHASHED = ("seed", "train.threads")
# Metadata of a field that joined a configuration when runs without it existed. At its default it is left out of to_dict, so
# hashes and folders of older runs stay: the default of such a field never changes.
ADDED = {"added": True}


def require(
    option: str,
    value: float | None,
    *,
    above: float | None = None,
    at_least: float | None = None,
    at_most: float | None = None,
) -> None:
    """Refuse a number that is not finite or out of range; None, where an option allows it, passes."""
    if value is None:
        return
    limits = {"above": above, "at least": at_least, "at most": at_most}
    wrong = not isfinite(value) or (above is not None and value <= above)
    wrong = wrong or (at_least is not None and value < at_least) or (at_most is not None and value > at_most)
    if wrong:
        expected = " and ".join(f"{word} {limit:g}" for word, limit in limits.items() if limit is not None)
        raise UsageError(f"{option} must be a finite number {expected}".rstrip() + f", got {value}")


def require_seed(seed: int) -> None:
    """Refuse a seed that the generators do not take."""
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed < 2**32:
        raise UsageError(f"--seed must be a whole number from 0 to 4294967295, got {seed!r}")


@dataclass(frozen=True)
class TrainConfig:
    """How the runner trains.

    Parameters
    ----------
    epochs
        passes over the training data
    max_steps
        steps to train in place of the epochs, or null
    eval_steps
        steps between evaluations in place of eval_every, or null
    batch_size
        training examples a step
    lr
        peak learning rate
    optimizer
        adam, adamw, adagrad or sgd; riemannian_adam or riemannian_sgd step along geodesics where a parameter holds points
    weight_decay
        as the optimiser defines it
    clip
        largest gradient norm, or null for none
    schedule
        constant, linear, cosine, hold (constant for one half, then linear to 1 percent) or noam
    warmup
        steps of linear warm-up
    eval_every
        epochs between evaluations on the validation split
    patience
        evaluations without a better score before stopping, or null
    threads
        CPU threads; part of what makes two runs equal to the bit
    precision
        fp32, or bf16 by autocast
    activation_bits
        bits at which what a step keeps for its backward pass is held (8, 4, 2 or 1), or null for all of them
    activation_points
        8 to hold the points of Lorentz layers at 8 bits too, or null to keep them exact
    """

    epochs: int = 100
    batch_size: int = 1000
    lr: float = 1e-3
    optimizer: str = "adam"
    weight_decay: float = 0.0
    clip: float | None = 1.0
    schedule: str = "constant"
    warmup: int = 0
    eval_every: int = 10
    patience: int | None = None
    threads: int = 1
    precision: str = "fp32"
    max_steps: int | None = field(default=None, metadata=ADDED)
    eval_steps: int | None = field(default=None, metadata=ADDED)
    activation_bits: int | None = field(default=None, metadata=ADDED)
    activation_points: int | None = field(default=None, metadata=ADDED)

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "eval_every", "threads"):
            require(f"--train.{name}", getattr(self, name), at_least=1)
        require("--train.threads", self.threads, at_least=1, at_most=4 * (os.cpu_count() or 1))
        require("--train.max_steps", self.max_steps, at_least=1)
        require("--train.eval_steps", self.eval_steps, at_least=1)
        require("--train.patience", self.patience, at_least=1)
        require("--train.lr", self.lr, above=0)
        require("--train.clip", self.clip, above=0)
        require("--train.warmup", self.warmup, at_least=0)
        require("--train.weight_decay", self.weight_decay, at_least=0)
        if self.precision not in ("fp32", "bf16"):
            raise UsageError(f"--train.precision is fp32 or bf16; got {self.precision!r}")
        if self.activation_bits not in (None, 8, 4, 2, 1):
            raise UsageError(f"--train.activation_bits is 8, 4, 2, 1 or null; got {self.activation_bits}")
        if self.activation_points not in (None, 8):
            raise UsageError(f"--train.activation_points is 8 or null; got {self.activation_points}")
        if self.activation_points and not self.activation_bits:
            raise UsageError("--train.activation_points acts with --train.activation_bits alone; give both")

    def steps(self, batches: int) -> int:
        """Steps of a run whose epochs have so many batches; none where there is nothing to train."""
        return self.max_steps if self.max_steps is not None and batches else batches * self.epochs


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain dict of a configuration, as ``config.yaml`` holds it: without ``ADDED`` ones at default."""
    return {
        f.name: to_dict(value) if is_dataclass(value) else deepcopy(value)
        for f in fields(config)
        for value in [getattr(config, f.name)]
        if not (f.metadata.get("added") and value == _default(f))
    }


def _default(f: Field[Any]) -> Any:
    return f.default if f.default_factory is MISSING else f.default_factory()


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``("train.lr", 0.1)`` pairs of a nested mapping."""
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def config_hash(task: str, config: Mapping[str, Any]) -> str:
    """SHA-256 of a configuration without seed, threads and paths: runs that differ in seed alone share it."""
    flat = {key: value for key, value in flatten(config) if key not in UNHASHED}
    flat["data"] = Path(str(flat.get("data"))).resolve().name
    flat["task"] = task
    return hashlib.sha256(json.dumps(flat, sort_keys=True).encode()).hexdigest()


def study_digest(options: Mapping[str, Any]) -> str:
    """Eight digits by which the folder of a study of many runs is named, of the options that make it another one."""
    return hashlib.sha256(json.dumps(dict(options), sort_keys=True).encode()).hexdigest()[:8]


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Lines ``train.lr: 0.1 -> 0.2`` for every field in which two configurations differ."""
    before, after = dict(flatten(old)), dict(flatten(new))
    missing = "(absent)"
    return [
        f"{key}: {before.get(key, missing)} -> {after.get(key, missing)}"
        for key in sorted(before | after)
        if before.get(key, missing) != after.get(key, missing)
    ]


def load_recipe(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a recipe or a run folder's ``config.yaml``: the configuration, and the published numbers it should reach."""
    try:
        text = path.read_text(encoding="utf-8")
        tree = yaml.safe_load(text)
    except FileNotFoundError:
        raise UsageError(f"no configuration file {path}. `hyrel ls recipes` names the shipped ones.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(tree, dict):
        raise UsageError(f"{path} holds no mapping; a recipe has the keys `config` and `published`")
    if twice := _twice(yaml.compose(text, yaml.SafeLoader)):
        raise UsageError(f"{path}: {twice} stands there twice; which one is meant?")
    config, published = tree.get("config", tree), tree.get("published") or []
    if not isinstance(config, dict):
        raise UsageError(f"{path}: `config` is a {type(config).__name__}, expected a mapping")
    if not isinstance(published, list):
        raise UsageError(f"{path}: `published` is a {type(published).__name__}, expected a list")
    if "config" in tree and (beside := sorted(map(str, tree.keys() - {"config", "published"}))):
        raise UsageError(f"{path}: {', '.join(beside)} stands beside `config` and would not be read; move it below")
    return dict(config), published


def _twice(node: Any) -> str | None:
    """A key that stands twice in one mapping, of which YAML would keep the last."""
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        if doubled := [key for key in keys if keys.count(key) > 1]:
            return doubled[0]
    parts = node.value if isinstance(node, yaml.SequenceNode | yaml.MappingNode) else []
    inner = (part[1] if isinstance(part, tuple) else part for part in parts)
    return next((found for part in inner if (found := _twice(part))), None)


def make_config(
    cls: type[C], *, args: Sequence[str] = (), overrides: Mapping[str, Any] | None = None, prog: str = "hyrel run"
) -> C:
    """Fill the configuration dataclass `cls` from nested `overrides`, then from command-line `args`, which win.

    Raises
    ------
    UsageError : an unknown name (the nearest one is suggested), a value of the wrong type, values that do not fit.
    """
    import jsonargparse

    overrides, args, opened = _opened(cls, sections_as_mappings(cls, native(overrides or {})), args)
    sections = _sections(cls)
    defaults = dict(flatten(asdict(cls())))  # type: ignore[call-overload]
    known = list(defaults)
    args = rename(name_sections(args, sections), getattr(cls, "ALIASES", {}))
    args = switches(args, [key for key, value in defaults.items() if isinstance(value, bool)])
    for key, _ in flatten(overrides):
        if key not in known:
            raise UsageError(f"unknown option {key!r}. {did_you_mean(key, known)}")
    for arg in args:
        name = arg.removeprefix("--").split("=", 1)[0]
        if arg.startswith("--") and name not in [*known, "help"]:
            raise UsageError(f"unknown option --{name}. {did_you_mean(name, known)}")
    try:
        kept: Any = _parser(cls, prog)  # type: ignore[arg-type]
        base = kept.parse_object(dict(overrides)) if overrides else kept.get_defaults()
        values = base.as_dict()
        if args:
            parser = _parser.__wrapped__(cls, prog)  # not the kept one, whose defaults must stay
            parser.set_defaults(dict(flatten(values)))
            values = parser.parse_args(list(args)).as_dict()
    except jsonargparse.ArgumentError as error:
        raise UsageError(_plain(" ".join(str(error).split()))) from None
    for (section, collected), options in opened.items():
        values[section][collected] = options
    return _build(cls, values)


def _opened(
    cls: type, overrides: Mapping[str, Any], args: Sequence[str]
) -> tuple[dict[str, Any], list[str], dict[tuple[str, str], dict[str, Any]]]:
    """Take out what belongs to the open sections of a configuration, ``cls.OPEN``: section to the field that collects.

    Such a section takes options that no one here knows, ``--delta.rank 8``, and is also given as the value of its first
    field, ``delta="LoRA"``. Returns the overrides and words left, and the collected options by section and field.
    """
    left, words = dict(overrides), list(args)
    opened: dict[tuple[str, str], dict[str, Any]] = {}
    for section, collected in getattr(cls, "OPEN", {}).items():
        hint = get_type_hints(cls)[section]
        names = [f.name for f in fields(hint) if f.name != collected]
        given = left.get(section)
        given = dict(given or {})
        options = {**given.pop(collected, {}), **{k: v for k, v in given.items() if k not in names}}
        left[section] = {k: v for k, v in given.items() if k in names}
        words, found = collect(words, section, names)
        if collected in found:  # all of them as one mapping
            options |= _mapping(f"--{section}.{collected}", found.pop(collected))
        try:
            options |= {name: _plain_value(value) for name, value in found.items()}
        except yaml.YAMLError:
            raise UsageError(
                f"the values of {', '.join(f'--{section}.{name}' for name in found)} are not plain"
            ) from None
        opened[section, collected] = options
    return left, words, opened


def _mapping(name: str, text: str) -> dict[str, Any]:
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        found = None
    if not isinstance(found, dict):
        raise UsageError(f"{name} {text!r}: expected a mapping such as {{rank: 8}}")
    return found


def _plain_value(text: str) -> Any:
    """A YAML value, with numbers such as 1e-3, which YAML 1.1 takes for words."""
    value = yaml.safe_load(text)
    return float(value) if isinstance(value, str) and re.fullmatch(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+", value) else value


_TYPES = {"int": "a whole number", "float": "a number", "bool": "true or false", "str": "text", "NoneType": "null"}


def _plain(message: str) -> str:
    """Say of a parser's complaint about a type what a user would."""
    found = re.match(r'Parser key "([\w.]+)": ', message)
    kinds = dict.fromkeys(re.findall(r"<class '(\w+)'>", re.split(r"Errors:|Got value:", message)[0]))
    value = re.search(r"(?:Got value|Given value): (.*)", message)
    if found is None or value is None or not kinds or any(kind not in _TYPES for kind in kinds):
        return message
    return f"--{found[1]}: expected {' or '.join(_TYPES[kind] for kind in kinds)}, got {value[1]}"


def native(value: Any) -> Any:
    """Numbers of numpy as those of Python, at any depth."""
    if isinstance(value, Mapping):
        return {key: native(part) for key, part in value.items()}
    if type(value) in (list, tuple):
        return type(value)(native(part) for part in value)
    return value.item() if type(value).__module__ == "numpy" and hasattr(value, "item") else value


def describe_options(cls: type, *, prog: str) -> str:
    """Help text of every option of a configuration dataclass, with its default."""
    text = str(_parser(cls, prog).format_help())
    for section in _sections(cls):  # what the parser would make of --SECTION; here it is the section's first option
        text = re.sub(rf"\n  --{section} CONFIG\s+Path to a configuration file\.", "", text)
        text = re.sub(rf"\[--{section} CONFIG\]\s*", "", text)
    text = re.sub(r"``([^`]+)``", r"\1", text)  # of docstrings
    return re.sub(r", --\w+\+ [A-Z_]+", "", text)


@lru_cache
def _parser(cls: type, prog: str) -> Any:
    import jsonargparse

    parser = jsonargparse.ArgumentParser(prog=prog, exit_on_error=False, allow_abbrev=False)
    parser.add_class_arguments(cls, None, as_group=False)
    return parser


def _sections(cls: type) -> dict[str, str]:
    """Nested dataclasses of a configuration, by name, with the name of their first field."""
    hints = get_type_hints(cls)
    return {f.name: fields(hints[f.name])[0].name for f in fields(cls) if is_dataclass(hints[f.name])}


def sections_as_mappings(cls: type, tree: Mapping[str, Any]) -> dict[str, Any]:
    """A nested configuration with every section as a mapping.

    ``model="mure"`` names the first field of a section, and a section of null, such as one whose lines are all comments, says
    nothing where that field cannot be null.
    """
    hints, out = get_type_hints(cls), dict(tree)
    for name, first in _sections(cls).items():
        if name not in out or isinstance(out[name], Mapping):
            continue
        if out[name] is None and not _takes_null(get_type_hints(hints[name])[first]):
            del out[name]
        else:
            out[name] = {first: out[name]}
    return out


def _takes_null(hint: Any) -> bool:
    return hint is Any or type(None) in get_args(hint)


def _build(cls: type[C], values: Mapping[str, Any], prefix: str = "") -> C:
    hints, nested, parts = get_type_hints(cls), _sections(cls), {}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.name not in values:
            continue
        value: Any = values[f.name]
        hint: Any = hints[f.name]
        if value is None and not _takes_null(hint):  # which the parser lets pass
            raise UsageError(f"--{prefix}{f.name}: expected a value, got null")
        parts[f.name] = _build(hint, value, f"{prefix}{f.name}.") if f.name in nested else value
    return cls(**parts)
