"""What attaching a delta would do, before it is done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from .attaching import built_sites, head_paths
from .base import Combination, Delta, Site, methods_of
from .hosts import Host, host_of
from .nesting import refuse_mixed

__all__ = ["Plan", "plan"]


@dataclass(frozen=True)
class Row:
    """A site in a plan."""

    path: str
    role: str
    method: str
    kind: str
    parameters: int


@dataclass(frozen=True)
class Plan:
    """Sites, and what they would train.

    Attributes
    ----------
    parameters : number of trained parameters of the delta
    bytes : what they take in memory
    head_parameters : number of trained parameters of the heads
    total : parameters of the model as it is
    exact : whether the model is unchanged, to the bit, right after attaching
    """

    rows: tuple[Row, ...]
    parameters: int
    bytes: int
    head_parameters: int
    total: int
    exact: bool
    model: str

    def __str__(self) -> str:
        return self.tree(color=False)

    def tree(self, *, color: bool = True) -> str:
        """The modules with a site as a tree; equal layers stand once, ``0-5``."""
        from rich.console import Console
        from rich.text import Text
        from rich.tree import Tree

        share = self.parameters / max(self.total, 1)
        title = f"{self.model}: {self.parameters:,} trained of {self.total:,} ({share:.2%}), {self.bytes:,} bytes"
        root = Tree(Text(title, style="bold"))
        nodes = {"": root}
        for path, rows in _folded(self.rows).items():
            node, walked = root, ""
            for name in path.split("."):
                walked = f"{walked}.{name}" if walked else name
                if walked not in nodes:
                    nodes[walked] = node.add(Text(name, style="dim"))
                node = nodes[walked]
            for method, role, count in rows:
                node.add(Text.assemble((method, "green"), f" {count:,} ", (role, "cyan")))
        if self.head_parameters:
            root.add(Text(f"heads, trained beside it: {self.head_parameters:,}", style="yellow"))
        console = Console(
            width=160, force_terminal=color, color_system="standard" if color else None, no_color=not color
        )
        with console.capture() as capture:
            console.print(root)
        return capture.get()


def _folded(rows: tuple[Row, ...]) -> dict[str, list[tuple[str, str, int]]]:
    """Rows by path, the indices of layers that have the same rows joined."""
    groups: dict[tuple[str, str, str, int], list[int]] = {}
    plain: dict[str, list[tuple[str, str, int]]] = {}
    for row in rows:
        parts = row.path.split(".")
        index = next((i for i, part in enumerate(parts) if part.isdigit()), None)
        if index is None:
            plain.setdefault(row.path or "(model)", []).append((row.method, row.role, row.parameters))
            continue
        key = (".".join([*parts[:index], "*", *parts[index + 1 :]]), row.method, row.role, row.parameters)
        groups.setdefault(key, []).append(int(parts[index]))
    for (path, method, role, count), numbers in groups.items():
        span = f"{numbers[0]}" if len(numbers) == 1 else f"{numbers[0]}-{numbers[-1]}"
        if numbers != list(range(numbers[0], numbers[-1] + 1)):
            span = ",".join(map(str, numbers))
        each = f"{len(numbers)} x " if len(numbers) > 1 else ""
        plain.setdefault(path.replace("*", span, 1), []).append((f"{method} {each}".strip(), role, count))
    return plain


def plan(
    model: nn.Module,
    spec: Delta | Combination,
    *,
    host: Host | str | Mapping[str, str] | None = None,
    heads: Sequence[str] | None = None,
) -> Plan:
    """Where a delta would go and what it would train; the model and the random state are left as they are.

    Parameters
    ----------
    model, spec, host, heads : as for :func:`deltas.attach`

    Raises
    ------
    DeltaError : as attaching would.
    """
    chosen = host_of(model, host)
    rows: list[Row] = []
    sites: list[Site] = []
    numbers = size = 0
    seen: dict[int, nn.Parameter] = {}
    exact = True
    with torch.random.fork_rng():
        for method in methods_of(spec):
            exact = exact and method.exact
            found = built_sites(method, chosen)
            sites += found
            for site in found:
                own = _parameters(site, seen)
                count = sum(p.numel() for p in own)
                numbers += count
                size += sum(p.numel() * p.element_size() for p in own)
                rows.append(Row(site.path, site.place.role, method.name, site.kind, count))
    refuse_mixed(sites)
    trained = head_paths(model, chosen, heads)
    of_heads = sum(p.numel() for path in trained for p in model.get_submodule(path).parameters())
    total = sum(p.numel() for p in model.parameters())
    return Plan(tuple(rows), numbers, size, of_heads, total, exact, type(model).__name__)


def _parameters(site: Site, seen: dict[int, nn.Parameter]) -> list[nn.Parameter]:
    """Parameters of a site that no site before had."""
    if site.kind == "parameters":
        own = [site.module.get_parameter(name) for name in site.names]
    else:
        assert site.part is not None
        own = list(site.part.parameters())
    new = [p for p in own if id(p) not in seen]
    seen.update({id(p): p for p in new})  # the parameter too: the name of a dead one could come again
    return new
