"""Fitted models that several benchmarks of relation similarity share, kept in a folder when one is named."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from relsim.distribution import FactDistribution
from relsim.facts import Facts
from relsim.fit import fit

from .common import row

__all__ = ["MODELS", "apart", "arguments", "fitted", "load", "split_in_four"]

# Data set, hidden width, epochs, batch size; "-split": relations with 400 facts or more in four disjoint parts.
MODELS = {
    "codex": ("CoDEx-S", 256, 10, 256),
    "codex-wide": ("CoDEx-S", 1024, 10, 256),
    "ours": ("FB15k-237", 256, 9, 512),
    "note": ("FB15k-237", 1024, 3, 512),
    "split": ("FB15k-237", 256, 8, 512),
}


def load(folder: Path) -> Facts:
    plain = folder / "train.txt"
    with plain.open() if plain.exists() else gzip.open(folder / "train.txt.gz", "rt") as stream:
        return Facts.from_triples(line.rstrip("\r\n").split("\t") for line in stream)


def split_in_four(facts: Facts, least: int = 400) -> Facts:
    """Every relation with ``least`` facts or more as four disjoint relations."""
    generator, relation, names = torch.Generator().manual_seed(0), facts.relation.clone(), list(facts.relations)
    for r in (facts.support >= least).nonzero().squeeze(1).tolist():
        rows = (facts.relation == r).nonzero().squeeze(1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        for part in range(1, 4):
            relation[rows[part::4]] = len(names) + part - 1
        names += [f"{facts.relations[r]}#{part}" for part in range(1, 4)]
    return replace(facts, relation=relation, relations=names)


def fitted(
    name: str, data: Path, kept: Path | None, *, seed: int = 0
) -> tuple[FactDistribution, list[dict[str, Any]], Facts]:
    """The model, rows that say what it is, and its facts."""
    folder, hidden, epochs, batch = MODELS[name]
    facts = load(data / "kg" / folder)
    if name == "split":
        facts = split_in_four(facts)
    model = FactDistribution(facts.num_entities, facts.num_relations, hidden=hidden, seed=seed)
    file = None if kept is None else kept / (name if seed == 0 else f"{name}-{seed}")
    if file is not None and file.with_suffix(".safetensors").exists():
        model.load_state_dict(load_file(file.with_suffix(".safetensors")))
        about = json.loads(file.with_suffix(".json").read_text())
    else:
        started = time.process_time()
        report = fit(model, facts, epochs=epochs, seed=seed, batch_size=batch, held_out=0.04)
        seconds = time.process_time() - started
        about = {"head": report.held_out_head, "tail": report.held_out_tail, "cpu_s": seconds}
        if file is not None:
            save_file({k: v.contiguous() for k, v in model.state_dict().items()}, file.with_suffix(".safetensors"))
            file.with_suffix(".json").write_text(json.dumps(about))
    size = f"{folder}{' split' if name == 'split' else ''} R={facts.num_relations} E={facts.num_entities}"
    title = f"{size} H={hidden}, {epochs} epochs"
    print(f"{title}: held-out NLL head {about['head']:.3f}, tail {about['tail']:.3f}, fit {about['cpu_s']:.0f} s")
    rows = [row(f"{title}: held-out NLL, {part}", about[part], "nats") for part in ("head", "tail")]
    return model.eval().requires_grad_(False), [*rows, row(f"{title}: fit", about["cpu_s"], "s")], facts


def apart(matrix: torch.Tensor) -> torch.Tensor:
    """Entries off the diagonal."""
    return matrix[..., ~torch.eye(matrix.shape[-1], dtype=torch.bool)]


def arguments(description: str | None) -> tuple[argparse.ArgumentParser, Path | None]:
    """A parser with ``--models``, and the data folder, None when there is none."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, help="folder where fitted models are kept and found again")
    folder = Path(os.environ.get("HYREL_DATA", ""))
    torch.set_num_threads(1)
    if not os.environ.get("HYREL_DATA") or not (folder / "kg" / "CoDEx-S").is_dir():
        print("skipped: HYREL_DATA names no folder with kg/CoDEx-S")
        return parser, None
    return parser, folder
