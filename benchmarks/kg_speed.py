"""Speed of knowledge-graph completion beside a plain loop written from the paper's equations.

    python -m benchmarks.kg_speed [--data WN18RR] [--epochs 2] [--queries 1000]

Batches of the two trainings alternate in one process (process CPU time, one thread), the plain loop of
``benchmarks.reference.hybonet_loop`` for ``--epochs`` epochs at its published settings, ours by the shipped recipe. After its
epochs the plain loop is ranked on ``--queries`` validation queries and ours goes on, if need be, until its paper_mrr on the
same queries is as good: the time to equal validation MRR, measured at that early score. What is said of whole trainings is
extrapolated, from the seconds of an epoch and the epochs of the published script (1000) and of the recipe; and ranking of the
plain loop from the queries asked. Results go to benchmarks/results/kg_speed.json. HYREL_DATA names the data folder.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from statistics import median

import geoopt
import torch

from tasks.api import configure
from tasks.data.load import load
from tasks.kg.ranking import rank
from tasks.kg.scorers import HyboNet
from tasks.kg.task import KnowledgeGraphCompletion
from tasks.optim import build_optimizers, cap_norms, schedule_factor

from .common import asked, row, save
from .reference import hybonet_loop as plain

PUBLISHED_EPOCHS = {"WN18RR": 1000, "FB15k-237": 500}
RECIPES = {"WN18RR": "kg/wn18rr-32", "FB15k-237": "kg/fb15k237-32"}


def timed(work: Callable[[], object]) -> float:
    start = time.process_time()
    work()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="WN18RR", choices=sorted(RECIPES))
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--queries", type=int, default=1000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    data = load(options.data)
    config = configure("kg", recipe=RECIPES[options.data])
    task = KnowledgeGraphCompletion(config)
    torch.manual_seed(0)
    ours = task.build(config, data)
    assert isinstance(ours, HyboNet)
    optimizers = build_optimizers(task.param_groups(ours), config.train)
    batches = task.n_batches(data)
    total = batches * config.train.epochs

    def step(number: int) -> None:
        factor = schedule_factor(config.train, number, total)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad()
        loss = task.step(ours, task.train_batch(data, number // batches, number % batches, 0))[0]
        loss.backward()
        if config.train.clip:
            torch.nn.utils.clip_grad_norm_(ours.parameters(), config.train.clip)
        for optimizer in optimizers:
            optimizer.step()
        cap_norms(optimizers)

    loop = plain.PlainHyboNet(data.num_entities, data.num_relations, config.model.dim)
    optimizer = geoopt.optim.RiemannianAdam(loop.parameters(), lr=plain.RATE, stabilize=1)
    theirs, mine = [], []
    for epoch in range(options.epochs):
        for batch in plain.epoch_batches(data, 0, epoch):
            theirs.append(timed(lambda batch=batch: plain.train_batch(loop, optimizer, batch)))  # type: ignore[misc]
            if len(mine) < options.epochs * batches:
                mine.append(timed(lambda: step(len(mine))))

    everything = data.with_inverses("valid")
    chosen = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    queries = everything[chosen[: options.queries]]
    answers: dict[tuple[int, int], set[int]] = {}
    for split in ("train", "valid", "test"):
        for h, r, t in data.with_inverses(split).tolist():
            answers.setdefault((h, r), set()).add(t)
    known = data.known("all")

    def score() -> float:
        return float(rank(ours, queries, known)[1].reciprocal().mean())

    ranks: list[int] = []
    slow_ranking = timed(lambda: ranks.extend(plain.rank_queries(loop, queries, answers))) / len(queries)
    fast_ranking = median(timed(lambda: rank(ours, everything, known)) for _ in range(3)) / len(everything)
    reached = sum(1 / r for r in ranks) / len(ranks)
    # The steps after which ours is as good, looked for every tenth of an epoch from the start: trained anew for it.
    torch.manual_seed(0)
    ours = task.build(config, data)
    optimizers = build_optimizers(task.param_groups(ours), config.train)
    need, seconds = 0, 0.0
    while need < total and score() < reached:
        some = range(need, need + max(1, batches // 10))
        seconds += timed(lambda some=some: [step(number) for number in some])  # type: ignore[misc]
        need = some.stop
    slow, fast = sum(theirs) / options.epochs, sum(mine) / options.epochs
    n, where = options.epochs * batches, f"{options.data}, dimension {config.model.dim}"
    early = sum(theirs) / max(seconds, 1e-9)
    schedule = slow * PUBLISHED_EPOCHS[options.data] / (fast * config.train.epochs)
    ranking = slow_ranking / fast_ranking
    rows = [
        row(f"{where}: CPU seconds an epoch, plain loop", round(slow, 2), "s", n=n),
        row(f"{where}: CPU seconds an epoch, ours", round(fast, 2), "s", n=n),
        row(f"{where}: epoch of the plain loop, in ours", round(slow / fast, 2), "1", n=n),
        row(f"{where}: paper_mrr of the plain loop on {len(queries)} validation queries after {options.epochs} epochs",
            round(reached, 4), "0 to 1", n=len(queries)),
        row(f"{where}: epochs of ours to the same paper_mrr", round(need / batches, 2), "1"),
        row(f"{where}: CPU time of the plain loop to that score, in ours", round(early, 1), "1", target=5.0, met=early >= 5),
        row(f"{where}: CPU time of {PUBLISHED_EPOCHS[options.data]} published epochs of the plain loop, in the recipe's "
            f"{config.train.epochs} (extrapolated from the seconds of an epoch)", round(schedule, 1), "1",
            target=5.0, met=schedule >= 5),
        row(f"{where}: CPU milliseconds a ranked query, plain loop", round(1e3 * slow_ranking, 3), "ms", n=len(queries)),
        row(f"{where}: CPU milliseconds a ranked query, ours", round(1e3 * fast_ranking, 3), "ms", n=len(everything)),
        row(f"{where}: ranking of the plain loop, in ours (extrapolated from {len(queries)} queries)", round(ranking, 1), "1",
            target=20.0, met=ranking >= 20),
    ]  # fmt: skip
    for r in rows:
        print(f"{r['what']}: {r['value']} {r['unit']}")
    print(save("kg_speed", asked("kg_speed"), rows, threads=1))


if __name__ == "__main__":
    main()
