"""Peak resident memory of this process, which trains Lorentz graph attention on PubMed (19,717 nodes) for three steps.

    python -m benchmarks.graphs_memory

Features are identity ones, which is what the data folder allows. The interpreter and torch are included.
"""

from __future__ import annotations

import resource

import torch

from tasks.api import configure
from tasks.data.load import load
from tasks.graph.task import GraphTask
from tasks.optim import build_optimizers

from .common import asked, row, save

LIMIT = 1024  # MiB


def main() -> None:
    torch.set_num_threads(1)
    config = configure(
        "graph",
        overrides={"data": "PubMed", "problem": "nc", "model": {"encoder": "lorentz_attention", "heads": 3}},
    )
    data, task = load(config.data), GraphTask(config)
    model = task.build(config, data)
    optimizers = build_optimizers(task.param_groups(model), config.train)
    for epoch in range(3):
        for optimizer in optimizers:
            optimizer.zero_grad()
        task.step(model, task.train_batch(data, epoch, 0, 0))[0].backward()
        for optimizer in optimizers:
            optimizer.step()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    what = "peak memory of Lorentz graph attention on PubMed, 19,717 nodes, forward and backward"
    print(f"{what}: {peak:.0f} MiB")
    rows = [row(what, round(peak), "MiB", target=LIMIT, met=peak <= LIMIT)]
    print(save("graphs_memory", asked("graphs_memory"), rows, threads=1))


if __name__ == "__main__":
    main()
