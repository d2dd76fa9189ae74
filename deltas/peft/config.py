"""Configurations of peft: which values are understood, and which modules a configuration means."""

from __future__ import annotations

import re
import warnings
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import nn

from ..errors import DeltaError, nearest
from ..hosts import Host

__all__ = ["Known", "check", "heads_of", "matches", "roles_of", "targets_of", "task_of"]

_COMMON = (
    "peft_type",
    "peft_version",
    "task_type",
    "auto_mapping",
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "modules_to_save",
    "target_modules",
    "exclude_modules",
    "layers_to_transform",
    "layers_pattern",
)
_HEADS = ("classifier", "score")


class Known(NamedTuple):
    """Keys of one method's configuration.

    Attributes
    ----------
    used : that are read
    idle : that mean nothing for a trained delta
    only : key -> values that are understood
    """

    used: tuple[str, ...] = ()
    idle: tuple[str, ...] = ()
    only: Mapping[str, tuple[Any, ...]] = {}


def check(config: Mapping[str, Any], known: Known, where: str) -> None:
    """Refuse values that change what a checkpoint means; warn of keys that are not known and have a value.

    Raises
    ------
    DeltaError : names the key.
    """
    for key, allowed in known.only.items():
        value = config.get(key)
        if value and value not in allowed:
            shown = " or ".join(map(repr, allowed)) or "no value"
            raise DeltaError(f"{where}: {key}={value!r} is not supported, only {shown}")
    understood = (*_COMMON, *known.used, *known.idle, *known.only)
    unknown = [f"{key}={value!r}" for key, value in config.items() if key not in understood and value]
    if unknown:
        warnings.warn(f"{where}: {', '.join(unknown)} not known to hyrel, and ignored", stacklevel=3)


def matches(given: str | Collection[str] | None, path: str) -> bool:
    """Whether a path is meant: a string is an expression for all of it, a list holds paths or their ends."""
    if not given:
        return False
    if isinstance(given, str):
        return re.fullmatch(given, path) is not None
    return any(path == one or path.endswith(f".{one}") for one in given)


def targets_of(config: Mapping[str, Any], model: nn.Module) -> list[str] | None:
    """Paths of the modules that ``target_modules`` and its companions mean; None if it is not there."""
    wanted = config.get("target_modules")
    if not wanted:
        return None
    names = [name for name, _ in model.named_modules() if name and ".deltas." not in f".{name}."]
    if isinstance(wanted, str) and wanted.lower() == "all-linear":
        wanted = _all_linear(config, model, names)
    saved, excluded = config.get("modules_to_save") or [], config.get("exclude_modules")
    chosen = [
        name
        for name in names
        if matches(wanted, name)
        and not matches(excluded, name)
        and not any(re.match(rf"(^|.*\.){one}($|\..*)", name) for one in saved)
    ]
    if not isinstance(wanted, str):
        chosen = [name for name in chosen if _in_layers(config, name)]
    if not chosen:
        near = wanted if isinstance(wanted, str) else next(iter(wanted))
        raise DeltaError(
            f"target_modules={wanted!r} matches no module of this {type(model).__name__}. "
            f"{nearest(near, dict.fromkeys(name.rpartition('.')[2] for name in names))}"
        )
    return chosen


def _all_linear(config: Mapping[str, Any], model: Any, names: list[str]) -> list[str]:
    out = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    if out is None and config.get("task_type") == "SEQ_CLS":
        out = next((getattr(model, head) for head in _HEADS if hasattr(model, head)), None)
    modules = {name: model.get_submodule(name) for name in names}
    return [
        name
        for name, module in modules.items()
        if (isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D") and module is not out
    ]


def _in_layers(config: Mapping[str, Any], path: str) -> bool:
    wanted, patterns = config.get("layers_to_transform"), config.get("layers_pattern") or []
    if wanted is None or wanted == []:
        return True
    patterns = [patterns] if isinstance(patterns, str) else patterns
    tries = [rf"(?:^|.*?\.){one}\.(\d+)\." for one in patterns] or [r".*?\.[^.]*\.(\d+)\."]
    found = next((match for one in tries if (match := re.match(one, path))), None)
    return found is not None and int(found[1]) in ([wanted] if isinstance(wanted, int) else wanted)


def roles_of(host: Host, paths: list[str]) -> tuple[str, ...]:
    """Roles whose places are exactly these paths; the paths themselves where there are none."""
    rest, roles = set(paths), []
    for role in host.roles:
        places = host.places(role)
        if all(p.rows is None and p.path in rest for p in places):
            roles.append(role)
            rest -= {p.path for p in places}
    return tuple(roles) if not rest else tuple(paths)


def heads_of(config: Mapping[str, Any], model: nn.Module) -> list[str]:
    """Paths of the modules in ``modules_to_save``.

    peft finds them by the ends of their names: ``classifier`` means ``pre_classifier`` too.
    """
    saved = tuple(config.get("modules_to_save") or [])
    names = [name for name, _ in model.named_modules() if name and ".deltas." not in f".{name}."]
    found = [name for name in names if name.endswith(saved)] if saved else []
    return [name for name in found if not any(name.startswith(f"{other}.") for other in found)]


def task_of(model: nn.Module) -> str | None:
    """Name of a model's task, as peft has it."""
    kinds = {
        "ForSequenceClassification": "SEQ_CLS",
        "ForTokenClassification": "TOKEN_CLS",
        "ForQuestionAnswering": "QUESTION_ANS",
        "ForConditionalGeneration": "SEQ_2_SEQ_LM",
        "ForCausalLM": "CAUSAL_LM",
        "LMHeadModel": "CAUSAL_LM",
    }
    kind = type(model).__name__
    found = next((task for end, task in kinds.items() if kind.endswith(end)), None)
    return found or ("FEATURE_EXTRACTION" if kind.endswith("Model") else None)
