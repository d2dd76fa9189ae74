"""Proven nearest relations: how few pairs need sums of their own, against enumeration of everything on CoDEx-S.

    python -m benchmarks.relsim_topk [--models FOLDER] [--skip-large] [--tolerance NATS] [--effort SHARE]

One thread, process CPU time; data from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from relsim.distribution import FactDistribution
from relsim.kl.topk import nearest
from relsim.similarity import similarity

from .common import asked, row, save
from .relsim_models import arguments, fitted


def proof(
    name: str, model: FactDistribution, k: int, tolerance: float, target: float | None, effort: float | None = None
) -> list[dict[str, Any]]:
    started = time.process_time()
    found = nearest(model, k, tolerance=tolerance, effort=effort)
    seconds = time.process_time() - started
    whole = model.num_relations * model.num_entities
    certain = float(found.certain.double().mean())
    width = float((found.high - found.low).median())
    print(
        f"{name} top-{k}, tolerance {tolerance:g}: {seconds:.1f} s, {100 * certain:.1f} % proven, {100 * found.share:.2f} % "
        f"of pairs, {100 * found.cells / whole:.1f} % of cells, median width of the bounds {width:.3f} nats"
    )
    title = f"{name}, top-{k} within {tolerance:g} nats"
    if effort is not None:
        title += f", stopped at {effort:.0%} of all sums"
    aim = (
        {}
        if target is None
        else {"target": f"<= {target:g}, all proven", "met": found.share <= target and certain == 1.0}
    )
    return [
        row(f"{title}: relations proven", certain, "1"),
        row(f"{title}: share of pairs with sums of their own", found.share, "1", **aim),
        row(f"{title}: share of (relation, head) cells summed", found.cells / whole, "1"),
        row(f"{title}: time", seconds, "s"),
        row(f"{title}: median width of the bounds", width, "nats"),
    ]


def against_enumeration(model: FactDistribution, k: int) -> list[dict[str, Any]]:
    exact = similarity(model, method="exact", dtype=torch.float32)
    worst = torch.maximum(exact.kl, exact.kl.T).fill_diagonal_(torch.inf)
    found = nearest(model, k)
    truth = worst.topk(k, largest=False).indices
    agree = sum(set(a) == set(b) for a, b in zip(found.ids.tolist(), truth.tolist(), strict=True)) / len(truth)
    value = worst.gather(1, found.ids)
    held = float(((found.low <= value + 1e-6) & (value <= found.high + 1e-6)).double().mean())
    print(f"CoDEx-S top-{k}: {agree:.3f} of the sets agree with enumeration, {held:.3f} of the bounds hold")
    return [
        row(f"CoDEx-S, top-{k}: sets equal to enumeration", agree, "1", n=len(truth), target=1.0, met=agree == 1.0),
        row(f"CoDEx-S, top-{k}: bounds that hold", held, "1", n=value.numel(), target=1.0, met=held == 1.0),
    ]


def main() -> None:
    parser, data = arguments(__doc__)
    parser.add_argument("--skip-large", action="store_true", help="leave the 579 relations out")
    parser.add_argument("--tolerance", type=float, default=0.0, help="nats, for the 579 relations")
    parser.add_argument("--effort", type=float, help="share of all sums at which the search over 579 relations stops")
    options = parser.parse_args()
    if data is None:
        return
    model, rows, _ = fitted("codex", data, options.models)
    rows += against_enumeration(model, 3) + proof("CoDEx-S", model, 3, 0.0, None)
    if not options.skip_large:
        model, about, _ = fitted("split", data, options.models)
        rows += about + proof("FB15k-237 split, R=579", model, 3, options.tolerance, 0.06, options.effort)
    print(save("relsim_topk", asked("relsim_topk"), rows, threads=1))


if __name__ == "__main__":
    main()
