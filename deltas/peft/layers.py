"""Methods of linear layers and norms, as peft stores them: LoRA, IA3, LoKr and LN-tuning."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..base import Delta, Site
from ..errors import DeltaError
from ..handle import Handle
from ..hosts import Host
from ..linear import matrix
from ..methods.lokr import LoKr
from ..methods.lora import LoRA
from ..methods.own import LNTuning
from ..methods.scaling import IA3, INPUT
from .config import Known, roles_of
from .convert import Converter, Entry, Values, by_path, into, part_of

__all__ = ["IA3S", "LN_TUNING", "LOKR", "LORA"]

# LoRA


def _lora_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    return LoRA(
        rank=config.get("r", 8),
        alpha=float(config.get("lora_alpha", 8)),
        roles=roles_of(host, paths),
        dropout=float(config.get("lora_dropout") or 0),
        stabilised=bool(config.get("use_rslora")),
        directed=bool(config.get("use_dora")),
    )


def _lora_entries(handle: Handle) -> dict[str, Entry]:
    found = {}
    for site in handle.sites:
        part = part_of(site)
        found[f"{site.path}.lora_A.weight"] = into(part.A)
        found[f"{site.path}.lora_B.weight"] = into(part.B)
        if hasattr(part, "magnitude"):
            found[f"{site.path}.lora_magnitude_vector"] = into(part.magnitude)
    return found


def _lora_write(handle: Handle, spec: LoRA) -> tuple[dict[str, Any], Values]:
    values: Values = {}
    layers = by_path(handle)
    rank = spec.rank * max(len(sites) for sites in layers.values())  # parts of one fused layer become one
    for path, sites in layers.items():
        parts = [part_of(site) for site in sites]
        low = torch.cat([part.A for part in parts])
        up = torch.cat([_whole(site, part.B) for site, part in zip(sites, parts, strict=True)], 1)
        values[f"{path}.lora_A.weight"] = low.repeat(-(-rank // len(low)), 1)[:rank]
        values[f"{path}.lora_B.weight"] = F.pad(up, (0, rank - len(low)))
        if spec.directed:
            if sites[0].rows is not None:
                raise DeltaError(
                    f"peft has no DoRA of some rows of a fused layer; {path} has: take the role of all its rows"
                )
            values[f"{path}.lora_magnitude_vector"] = parts[0].magnitude
    config = {
        "r": rank,
        "lora_alpha": spec.scale * (rank**0.5 if spec.stabilised else rank),
        "lora_dropout": spec.dropout,
        "use_rslora": spec.stabilised,
        "use_dora": spec.directed,
        "bias": "none",
        "fan_in_fan_out": _stored_transposed(handle),
        "target_modules": sorted(layers),
    }
    return config, values


def _whole(site: Site, rows: Tensor) -> Tensor:
    """Rows of a fused layer among zeros for all others."""
    if site.rows is None:
        return rows
    whole, _ = matrix(site.module).shape
    full = rows.new_zeros(whole, rows.shape[1])
    full[site.rows] = rows
    return full


def _stored_transposed(handle: Handle) -> bool:
    return all(type(site.module).__name__ == "Conv1D" for site in handle.sites)


LORA = Converter(
    "LORA",
    (LoRA,),
    Known(
        used=("r", "lora_alpha", "lora_dropout", "use_rslora", "use_dora"),
        idle=(
            "fan_in_fan_out",
            "megatron_core",
            "eva_config",
            "loftq_config",
            "qalora_group_size",
            "ensure_weight_tying",
            "runtime_config",
        ),
        only={
            "bias": ("none",),
            "init_lora_weights": (True, "gaussian", "eva", "orthogonal"),
            **dict.fromkeys(
                (
                    "rank_pattern",
                    "alpha_pattern",
                    "layer_replication",
                    "lora_bias",
                    "target_parameters",
                    "trainable_token_indices",
                    "alora_invocation_tokens",
                    "use_qalora",
                    "use_bdlora",
                    "arrow_config",
                    "kasa_config",
                    "monteclora_config",
                    "velora_config",
                    "megatron_config",
                ),
                (),
            ),
        },
    ),
    _lora_spec,
    _lora_entries,
    _lora_write,
)


# IA3


def _ends(config: Mapping[str, Any], path: str) -> bool:
    """Whether a layer's input is multiplied and not its result."""
    given = config.get("feedforward_modules") or []
    return re.fullmatch(given, path) is not None if isinstance(given, str) else path.endswith(tuple(given))


def _ia3_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    before = [path for path in paths if _ends(config, path)]
    after = [path for path in paths if path not in before]
    return IA3(roles=roles_of(host, after), inputs=roles_of(host, before))


def _ia3_entries(handle: Handle) -> dict[str, Entry]:
    found = {}
    for site in handle.sites:
        factor = part_of(site).factor
        found[f"{site.path}.ia3_l"] = into(factor, (1, len(factor)) if _multiplies_input(site) else (len(factor), 1))
    return found


def _multiplies_input(site: Site) -> bool:
    return site.purpose == INPUT


def _ia3_write(handle: Handle, spec: IA3) -> tuple[dict[str, Any], Values]:
    values: Values = {}
    inputs = []
    for path, sites in by_path(handle).items():
        if _multiplies_input(sites[0]):
            inputs.append(path)
            values[f"{path}.ia3_l"] = part_of(sites[0]).factor[None]
            continue
        whole = [_whole(site, part_of(site).factor[:, None] - 1) for site in sites]
        values[f"{path}.ia3_l"] = 1 + sum(whole[1:], whole[0])
    config = {
        "target_modules": sorted(by_path(handle)),
        "feedforward_modules": sorted(inputs),
        "fan_in_fan_out": _stored_transposed(handle),
    }
    return config, values


IA3S = Converter(
    "IA3",
    (IA3,),
    Known(used=("feedforward_modules",), idle=("fan_in_fan_out", "init_ia3_weights")),
    _ia3_spec,
    _ia3_entries,
    _ia3_write,
)

# LoKr

_FACTORS = ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")


def _lokr_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    return LoKr(
        rank=config.get("r", 8),
        alpha=float(config.get("alpha", 8)),
        factor=config.get("decompose_factor", -1),
        decompose_both=bool(config.get("decompose_both")),
        roles=roles_of(host, paths),
    )


def _lokr_values(handle: Handle) -> Values:
    return {
        f"{site.path}.lokr_{name}": getattr(part_of(site), name)
        for site in handle.sites
        for name in _FACTORS
        if hasattr(part_of(site), name)
    }


def _lokr_entries(handle: Handle) -> dict[str, Entry]:
    return {key: into(parameter) for key, parameter in _lokr_values(handle).items()}


def _lokr_write(handle: Handle, spec: LoKr) -> tuple[dict[str, Any], Values]:
    for site in handle.sites:
        if not isinstance(site.module, nn.Linear):
            raise DeltaError(f"peft has no LoKr of {site.path}, a {type(site.module).__name__}")
    config = {
        "r": spec.rank,
        "alpha": spec.scale * spec.rank,
        "decompose_factor": spec.factor,
        "decompose_both": spec.decompose_both,
        "target_modules": sorted(site.path for site in handle.sites),
    }
    return config, _lokr_values(handle)


LOKR = Converter(
    "LOKR",
    (LoKr,),
    Known(
        used=("r", "alpha", "decompose_factor", "decompose_both"),
        idle=("init_weights", "use_effective_conv2d"),
        only=dict.fromkeys(
            ("rank_pattern", "alpha_pattern", "rank_dropout", "module_dropout", "rank_dropout_scale"), ()
        ),
    ),
    _lokr_spec,
    _lokr_entries,
    _lokr_write,
)

# LN-tuning


def _norm_spec(config: Mapping[str, Any], host: Host, paths: list[str], values: Values) -> Delta:
    return LNTuning(roles=roles_of(host, paths))


def _norm_entries(handle: Handle) -> dict[str, Entry]:
    return {
        f"{site.path}.ln_tuning_layers.{name}": into(site.module.get_parameter(name))
        for site in handle.sites
        for name in site.names
    }


def _norm_write(handle: Handle, spec: LNTuning) -> tuple[dict[str, Any], Values]:
    values: Values = {
        f"{site.path}.ln_tuning_layers.{name}": site.module.get_parameter(name)
        for site in handle.sites
        for name in site.names
    }
    return {"target_modules": sorted(site.path for site in handle.sites)}, values


LN_TUNING = Converter("LN_TUNING", (LNTuning,), Known(), _norm_spec, _norm_entries, _norm_write)
