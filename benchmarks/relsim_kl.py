"""Error, time and interval coverage of the KL estimators: CoDEx-S against exact values, all pairs of FB15k-237.

    python -m benchmarks.relsim_kl [--skip-large]

One thread; estimators interleaved; data from the folder that HYREL_DATA names.
"""

from __future__ import annotations

import argparse
import gzip
import os
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy import stats

from relsim.distribution import FactDistribution
from relsim.divergence import head_kl, head_prob
from relsim.facts import Facts
from relsim.fit import fit
from relsim.kl.ancestral import ancestral_kl
from relsim.kl.pool import draw_pool, inclusion_probability
from relsim.kl.result import RelationSimilarity
from relsim.maths.expfamily import bregman_kl, moments
from relsim.similarity import similarity

from .common import row, save

Rows = list[dict[str, Any]]


def load(folder: Path) -> Facts:
    plain = folder / "train.txt"
    with plain.open() if plain.exists() else gzip.open(folder / "train.txt.gz", "rt") as stream:
        return Facts.from_triples(line.rstrip("\r\n").split("\t") for line in stream)


def apart(matrix: torch.Tensor) -> torch.Tensor:
    return matrix[..., ~torch.eye(matrix.shape[-1], dtype=torch.bool)]


def accuracy(folder: Path, rows: Rows) -> None:
    facts = load(folder / "kg" / "CoDEx-S")
    model = FactDistribution(facts.num_entities, facts.num_relations)
    report = fit(model, facts, epochs=10, seed=0, batch_size=256, held_out=0.04)
    for part, value in (("head", report.held_out_head), ("tail", report.held_out_tail)):
        rows.append(row(f"CoDEx-S held-out NLL, {part}", value, "nats"))
    started = time.process_time()
    exact = similarity(model, method="exact")
    rows.append(row("CoDEx-S exact, float64", time.process_time() - started, "s"))
    single = similarity(model, method="exact", dtype=torch.float32)
    rows.append(
        row(
            "CoDEx-S largest error of float32 logits",
            float((single.kl - exact.kl).abs().max()),
            "nats",
            target=1e-4,
            met=bool((single.kl - exact.kl).abs().max() < 1e-4),
        )
    )
    cases: list[tuple[str, dict[str, Any], int]] = [
        ("ancestral S=20", {"method": "ancestral", "samples": 20}, 8),
        ("ancestral S=200", {"method": "ancestral", "samples": 200}, 2),
        *((f"pooled M={m}", {"heads": m}, 8) for m in (100, 200, 400, 800)),
    ]
    cases.insert(0, ("ancestral S=20, as published", {"method": "published"}, 2))
    runs: dict[str, list[tuple[float, torch.Tensor, torch.Tensor]]] = {name: [] for name, _, _ in cases}
    for seed in range(8):
        for name, options, repeats in cases:
            if seed < repeats:
                started = time.process_time()
                result = (
                    published(model, 20, seed)
                    if "published" in options.values()
                    else similarity(model, seed=seed, **options)
                )
                seconds = time.process_time() - started
                low, high = result.interval()
                runs[name].append((seconds, result.kl, apart((low <= exact.kl) & (exact.kl <= high)).double().mean()))
    worst = torch.maximum(exact.kl, exact.kl.T)
    print(f"CoDEx-S, median KL {float(apart(exact.kl).median()):.2f} nats")
    print(
        f"{'estimator':<30}{'seconds':>9}{'RMSE':>8}{'bias of max':>13}{'Spearman':>10}{'coverage':>10}{'speed-up':>10}"
    )
    # Squared error times time does not depend on the number of samples: its ratio is the speed-up at equal error.
    cost: dict[str, float] = {}
    for name, drawn in runs.items():
        error = [float(apart(kl - exact.kl).square().mean().sqrt()) for _, kl, _ in drawn]
        bias = statistics.mean(float(apart(torch.maximum(kl, kl.T) - worst).mean()) for _, kl, _ in drawn)
        rank = statistics.mean(float(stats.spearmanr(apart(kl), apart(exact.kl))[0]) for _, kl, _ in drawn)
        seconds, cover = statistics.median(s for s, _, _ in drawn), statistics.mean(float(c) for _, _, c in drawn)
        rmse = float(np.sqrt(np.mean(np.square(error))))
        cost[name] = seconds * rmse**2
        speedup = cost["ancestral S=20, as published"] / cost[name]
        print(f"{name:<30}{seconds:>9.2f}{rmse:>8.3f}{bias:>+13.3f}{rank:>10.5f}{cover:>10.3f}{speedup:>9.1f}x")
        spread = statistics.stdev(error) if len(error) > 1 else None
        rows += [
            row(f"CoDEx-S {name}: time", seconds, "s", n=len(drawn)),
            row(f"CoDEx-S {name}: RMSE", rmse, "nats", n=len(drawn), spread=spread),
            row(f"CoDEx-S {name}: bias of max", bias, "nats", n=len(drawn)),
            row(f"CoDEx-S {name}: Spearman", rank, "1", n=len(drawn)),
            row(f"CoDEx-S {name}: coverage of 95 % intervals", cover, "1", n=len(drawn)),
        ]
        if name.startswith("pooled"):
            rows.append(
                row(f"CoDEx-S {name}: equal-error speed-up over the sampler as published", speedup, "1", n=len(drawn))
            )
    coverage(model, rows)


@torch.no_grad()
def coverage(model: FactDistribution, rows: Rows, pools: int = 200) -> None:
    """Coverage by band of effective sample size over independent pools, from conditional divergences held once."""
    probability, size = head_prob(model), model.num_relations
    features, everything = model.features().double(), torch.arange(size)
    divergence = torch.empty(model.num_entities, size, size, dtype=torch.float64)
    for h in range(model.num_entities):
        natural = model.tail_natural_all(torch.tensor([h]))[0].double()
        divergence[h] = bregman_kl(natural, *moments(natural, features), everything)
    truth = torch.einsum("ih,hij->ij", probability, divergence)
    generator = torch.Generator().manual_seed(0)
    for heads in (100, 200, 400):
        inclusion = inclusion_probability(probability, heads)
        hits: dict[str, list[float]] = {}
        for _ in range(pools):
            pool = draw_pool(probability, heads, generator=generator, inclusion=inclusion)
            chosen = divergence[pool.heads]
            mean = torch.einsum("im,mij->ij", pool.weight, chosen)
            error = torch.einsum("im,mij->ij", pool.variance, (chosen - mean) ** 2).sqrt()
            quantile = torch.as_tensor(stats.t.ppf(0.975, pool.df.clamp(min=1.0).numpy()))
            inside = ((mean - truth).abs() <= quantile[:, None] * error + 1e-9).double()
            for i in range(size):
                ess = float(pool.ess[i])
                band = next(
                    f"{a} to {b}" for a, b in ((0, 10), (10, 20), (20, 50), (50, "all")) if b == "all" or ess < b
                )
                band += f", df {'below' if pool.df[i] < 5 else 'from'} 5"
                hits.setdefault(band, []).append(float(apart_row(inside, i)))
        for band in sorted(hits):
            value = statistics.mean(hits[band])
            print(f"coverage M={heads}, ess {band}: {value:.3f} ({len(hits[band])} rows)")
            rows.append(row(f"CoDEx-S coverage M={heads}, ess {band}", value, "1", n=len(hits[band]), target=0.93))


def published(model: FactDistribution, samples: int, seed: int) -> RelationSimilarity:
    """The ancestral sampler without shared normalisers: as many rows of logits as the published procedure."""
    drawn = ancestral_kl(model, samples, generator=torch.Generator().manual_seed(seed), reuse_heads=False)
    full, kl = torch.full((model.num_relations,), float(samples)).double(), drawn.head + drawn.tail
    return RelationSimilarity(
        kl, drawn.variance.sqrt(), full, full - 1, drawn.head, drawn.tail, "ancestral", drawn.heads, 1, ()
    )


def apart_row(matrix: torch.Tensor, i: int) -> torch.Tensor:
    return torch.cat([matrix[i, :i], matrix[i, i + 1 :]]).mean()


def all_pairs(folder: Path, rows: Rows) -> None:
    facts = load(folder / "kg" / "FB15k-237")
    model = FactDistribution(facts.num_entities, facts.num_relations)
    report = fit(model, facts, epochs=9, seed=0, held_out=0.04)
    print(
        f"FB15k-237 fit: {report.seconds:.0f} s, held-out head {report.held_out_head:.3f}, tail {report.held_out_tail:.3f}"
    )
    rows += [
        row("FB15k-237 fit: wall time", report.seconds, "s"),
        row("FB15k-237 held-out NLL, head", report.held_out_head, "nats", reference=6.58),
        row("FB15k-237 held-out NLL, tail", report.held_out_tail, "nats", reference=4.54),
    ]
    times: dict[str, list[float]] = {}
    kept: dict[str, Any] = {}
    for repeat in range(3):
        for heads in (200, 400) if repeat else (200, 400, 800):
            name = f"pooled M={heads}"
            started = time.process_time()
            kept[name] = similarity(model, heads=heads, seed=repeat)
            times.setdefault(name, []).append(time.process_time() - started)
        started = time.process_time()
        head_kl(model)
        times.setdefault("head KL", []).append(time.process_time() - started)
    started = time.process_time()
    kept["ancestral S=20"] = similarity(model, method="ancestral", samples=20)
    times["ancestral S=20"] = [time.process_time() - started]
    for name, seconds in times.items():
        middle = statistics.median(seconds)
        rows.append(row(f"FB15k-237 all pairs, {name}: time", middle, "s", n=len(seconds), **aim(name, middle, 8.0)))
        if name in kept:
            result = kept[name]
            error = float(apart(result.stderr).median())
            rows.append(
                row(
                    f"FB15k-237 all pairs, {name}: median standard error",
                    error,
                    "nats",
                    n=len(seconds),
                    **aim(name, error, 0.2),
                )
            )
            low = int((result.ess < 10).sum())
            print(
                f"FB15k-237 {name}: {middle:.2f} s, median SE {error:.3f}, min ess {float(result.ess.min()):.1f}, "
                f"{low} relations under 10, {result.heads_used} heads, {len(result.warnings)} warnings"
            )
        else:
            print(f"FB15k-237 {name}: {middle:.3f} s")
    print("nearest pairs:")
    for pair in kept["pooled M=400"].top(8, relations=facts.relations):
        print(f"  {pair.kl_forward:.3f} {pair.kl_backward:.3f} +-{pair.stderr:.3f}  {pair.first}  {pair.second}")


def aim(name: str, value: float, target: float) -> dict[str, Any]:
    return {"target": target, "met": value <= target} if name.startswith("pooled") else {}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--skip-large", action="store_true", help="leave FB15k-237 out")
    options = parser.parse_args()
    folder = Path(os.environ.get("HYREL_DATA", ""))
    if not os.environ.get("HYREL_DATA") or not (folder / "kg" / "CoDEx-S").is_dir():
        print("skipped: HYREL_DATA names no folder with kg/CoDEx-S")
        return
    torch.set_num_threads(1)
    rows: Rows = []
    accuracy(folder, rows)
    if not options.skip_large:
        all_pairs(folder, rows)
    print(save("relsim_kl", "python -m benchmarks.relsim_kl", rows, threads=1))


if __name__ == "__main__":
    main()
