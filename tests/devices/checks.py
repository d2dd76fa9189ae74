"""What is computed on the device and on the CPU, part by part; the two must agree."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

__all__ = ["PARTS", "REAL"]

Check = tuple[str, Callable[[torch.device], Any]]


def placed(module: Any, device: torch.device) -> Any:
    """A module moved in place, so that parameters which two modules share stay one."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        return module.to(device)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(False)


def moved(value: Any, device: torch.device) -> Any:
    """A copy of a module, or of the tensors in a value, on a device."""
    if isinstance(value, nn.Module):
        return placed(deepcopy(value), device)
    return tree_map_only(Tensor, lambda t: t.detach().clone().to(device), value)


def slopes(y: Tensor, module: nn.Module) -> list[Tensor | None]:
    """A result and the gradients of a number made of it."""
    if y.requires_grad:
        (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape).to(y.device)).sum().backward()
    return [y.detach(), *(p.grad for p in module.parameters())]


def refusals() -> Iterator[Check]:
    """What an accelerator refuses: these checks fail, else the others could not."""

    def numbers(device: torch.device) -> Tensor:
        return torch.ones(3, device=device)

    def drawn(device: torch.device) -> Tensor:
        return torch.randn(3, device=device, generator=torch.Generator())

    yield "two devices", lambda device: numbers(device) + torch.ones(3)
    yield "a table of the CPU", lambda device: torch.ones(3)[numbers(device).long()]
    yield "a gradient of two devices", lambda device: nn.Linear(3, 1)(numbers(device))
    yield "a generator", drawn
    yield "NumPy", lambda device: numbers(device).numpy().tolist()
    yield "the CPU's work", lambda device: torch.ones(3)


def cases() -> Iterator[tuple[Any, nn.Module, Any]]:
    """Every case of the layers of lorentz, its layer and inputs of it."""
    from tests.lorentz.registry import CASES

    for case in CASES:
        layer = case.layer(0.7, dtype=torch.float32).eval()
        yield case, layer, case.draw(layer, batch=(3,), dtype=torch.float32)


def layers() -> Iterator[Check]:
    """Every layer of lorentz, forward and backward, and a step of the optimisers."""
    from lorentz.optim import RiemannianAdam, RiemannianSGD

    for case, layer, inputs in cases():

        def run(device: torch.device, case: Any = case, layer: Any = layer, inputs: Any = inputs) -> Any:
            own = moved(layer, device)
            own.zero_grad()
            found = own(**moved(inputs, device), **moved(dict(case.options), device))
            return slopes(found, own)

        yield f"layer {case.name}", run
    for optimizer in (RiemannianAdam, RiemannianSGD):

        def step(device: torch.device, optimizer: Any = optimizer) -> Any:
            import lorentz

            torch.manual_seed(0)
            table = lorentz.LorentzEmbedding(7, 4, manifold=lorentz.Lorentz(1.0)).to(device)
            steps = optimizer(table.parameters(), lr=0.1)
            for _ in range(2):
                steps.zero_grad()
                points = table(torch.tensor([1, 2, 5]).to(device))
                table.manifold.dist(points, points.flip(0)).sum().backward()
                steps.step()
            return [p.detach() for p in table.parameters()]

        yield f"optimiser {optimizer.__name__}", step


def manifold() -> Iterator[Check]:
    """Every operation of the manifold that the tests of lorentz know."""
    import lorentz
    from tests.lorentz.test_manifold import OPERATIONS, OWN

    for name, (operation, takes) in {**OPERATIONS, **OWN}.items():

        def run(device: torch.device, operation: Any = operation, takes: str = takes) -> Any:
            space, generator = lorentz.Lorentz(0.7), torch.Generator().manual_seed(0)
            x, y, o = (space.lift(torch.randn(3, 4, generator=generator) * size) for size in (1, 1, 0))
            u, v, z = (space.proju(at, torch.randn(3, 5, generator=generator)) for at in (x, x, o))
            given = {"x": x, "y": y, "u": u, "v": v, "z": z}
            return operation(space.to(device), *(given[name].to(device) for name in takes))

        yield f"manifold {name}", run


def methods() -> Iterator[Check]:
    """Every delta, attached before the model is moved and after: forward, backward, switched off."""
    import deltas
    from tests.deltas.backbones import backbone, inputs, nudge
    from tests.deltas.test_conformance import CASES, FEW, PAIRS

    for name, where in [pair for pair in PAIRS if pair[1] in (*FEW, "vit") and (pair[1] != "vit" or pair[0] == "VPT")]:
        for after in (False, True):

            def run(device: torch.device, name: str = name, where: str = where, after: bool = after) -> Any:
                spec = CASES[name]
                model = backbone(where)
                torch.manual_seed(0)
                model = model if after else placed(model, device)
                handle = deltas.attach(model, spec)
                model = placed(model, device)
                nudge(handle)
                given = {key: value.to(device) for key, value in inputs(where).items()}
                found = model(**given)
                y = found["logits" if "logits" in found else "last_hidden_state"]
                on = slopes(y, model)
                handle.disable()
                with torch.no_grad():
                    off = model(**given)
                return [*on, off["logits" if "logits" in off else "last_hidden_state"]]

            yield f"delta {name} on {where}, {'moved with the model' if after else 'attached there'}", run


def relations() -> Iterator[Check]:
    """Fits of fact distributions there, and divergences, which are summed on the CPU."""
    import relsim
    from relsim.fit import held_out_nll, refit_head
    from relsim.kl.topk import nearest
    from relsim.model.mixture import BackOff
    from relsim.model.warmstart import warm_start

    names = ("born in", "lives in", "works in", "died in")
    triples = [(f"p{i}", name, f"c{(i * (3 + k)) % 9}") for i in range(60) for k, name in enumerate(names)]
    facts = relsim.Facts.from_triples(triples)

    def model(device: torch.device) -> relsim.FactDistribution:
        return relsim.FactDistribution(facts.num_entities, facts.num_relations, dim=6, hidden=12, seed=0).to(device)

    for negatives in (0, 10):

        def fit(device: torch.device, negatives: int = negatives) -> Any:
            own = model(device)
            warm_start(own, facts)
            relsim.fit(own, facts, epochs=3, seed=0, batch_size=32, held_out=0.2, patience=1, negatives=negatives)
            refit_head(own, facts, facts, steps=3)
            return dict(own.state_dict())

        yield f"fit with {negatives} negatives", fit

    def recommended(device: torch.device) -> Any:
        with mock.patch.object(torch, "dropout", lambda value, *_: value):  # draws differ from device to device
            own, _ = relsim.fit_distribution(facts, epochs=1, held_out=facts, device=device)
        # Adam takes the sign of a gradient that rounding alone decides: what the model says is compared, not its weights.
        return [torch.isfinite(own.relation), *held_out_nll(own, facts)]

    yield "fit_distribution", recommended
    for method in ("pooled", "exact", "ancestral", "auto"):

        def divergences(device: torch.device, method: str = method) -> Any:
            own = model(device)
            return [own.relation.detach(), relsim.similarity(own, method=method).kl.tolist()]

        yield f"similarity {method}", divergences
    yield "nearest", lambda device: [model(device).relation.detach(), nearest(model(device), 2).ids.tolist()]
    yield (
        "mixture",
        lambda device: [model(device).relation.detach(), BackOff(model(device), facts).fit(facts).nll(facts)],
    )


def place_runs(device: torch.device) -> None:
    """Let the runs of tasks take a device."""
    from accelerate.state import AcceleratorState

    from tasks import team

    if torch._C._get_privateuse1_backend_name() == "sim":
        team.Team.device = property(lambda _: device)  # type: ignore[assignment]
        return
    os.environ["ACCELERATE_USE_CPU"] = str(device.type == "cpu").lower()
    AcceleratorState._reset_state(reset_partial_state=True)


def runs() -> Iterator[Check]:
    """Whole runs of tasks on data of their own."""
    import tempfile
    from pathlib import Path

    import tasks
    from tasks import checkpoint

    lay: list[torch.device] = []  # where the models were that took the weights of their best evaluation
    read = checkpoint._load_weights

    def load(path: Any, model: nn.Module, frozen: Any) -> None:
        lay.append(next(model.parameters()).device)
        read(path, model, frozen)

    checkpoint._load_weights = load
    root = tempfile.TemporaryDirectory()  # gone with this generator
    folder = Path(root.name) / "films"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        rows = [
            f"{word} {i}\t{label}"
            for i in range(8)
            for word, label in (("a fine film", "good"), ("a dull film", "bad"))
        ]
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    train = {"max_steps": 3, "eval_steps": 3, "batch_size": 8}
    wanted: dict[str, tuple[str, dict[str, Any]]] = {
        "kg": ("kg", {"data": "taxonomy", "model": {"dim": 8}, "train": {"epochs": 1, "batch_size": 64, "eval_every": 1}}),
        "similarity": ("similarity", {"data": "taxonomy", "train": {"epochs": 1}}),
        "text": ("text", {"data": folder, "model": {"name": "lorentz-small", "dropout": 0.0}, "train": train}),
        "text with a delta": (
            "text",
            {
                "data": folder, "model": {"name": "lorentz-small", "head": "means"}, "delta": {"name": "PrefixTuning"},
                "train": train,
            },
        ),
    }  # fmt: skip
    for name, (task, options) in wanted.items():

        def run(device: torch.device, name: str = name, task: str = task, options: Any = options) -> Any:
            place_runs(device)
            with mock.patch.object(torch, "dropout", lambda value, *_: value):  # draws differ from device to device
                found = tasks.run(task, out=Path(root.name) / f"{name} on {device.type}", quiet=True, **options)
            return [torch.ones(1, device=lay[-1]), found.metrics["test"]]

        yield f"run of {name}", run


def compiled() -> Iterator[Check]:
    """Layers under torch.compile, forward and backward, against what the CPU says without it."""
    for case, layer, inputs in cases():

        def run(device: torch.device, case: Any = case, layer: Any = layer, inputs: Any = inputs) -> Any:
            torch._dynamo.reset()
            own = moved(layer, device)
            own.zero_grad()
            call = own if device.type == "cpu" else torch.compile(own)
            return slopes(call(**moved(inputs, device), **moved(dict(case.options), device)), own)

        yield f"compiled layer {case.name}", run


def autocast() -> Iterator[Check]:
    """Layers under autocast in bfloat16: how far they lie from what they say without it."""
    for case, layer, inputs in cases():

        def run(device: torch.device, case: Any = case, layer: Any = layer, inputs: Any = inputs) -> Any:
            own = moved(layer, device)
            given = {**moved(inputs, device), **moved(dict(case.options), device)}
            want = own(**given).detach()
            with torch.autocast(device.type, torch.bfloat16):
                found = own(**given)
            if found.requires_grad:
                found.float().square().mean().backward()
            assert (found.detach().float() - want).norm() < 0.05 * want.norm(), "bfloat16 is far from float32"
            return [torch.ones(1, device=device), *(p.grad.isfinite() for p in own.parameters() if p.grad is not None)]

        yield f"layer {case.name} in bfloat16", run


def activations() -> Iterator[Check]:
    """Activation compression: bytes held, and gradients near the exact ones at 8 bits."""
    from deltas.activations import ActivationCompressor
    from tests.deltas.backbones import backbone, inputs
    from tests.deltas.test_conformance import FEW

    for where in FEW:
        for bits in (8, 4, 2, 1):

            def run(device: torch.device, where: str = where, bits: int = bits) -> Any:
                torch.manual_seed(0)
                model = placed(backbone(where), device).eval()
                given = {key: value.to(device) for key, value in inputs(where).items()}

                def gradient(compressor: Any) -> Tensor:
                    model.zero_grad()
                    with compressor:
                        found = model(**given)
                        y = found["logits" if "logits" in found else "last_hidden_state"]
                        loss = (y * torch.linspace(-1, 1, y.numel()).view(y.shape).to(device)).sum()
                    loss.backward()
                    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

                want = gradient(nullcontext())
                compressor = ActivationCompressor(model, bits=bits)
                found = gradient(compressor)
                assert (found - want).norm() < {8: 0.05, 4: 0.7}.get(bits, math.inf) * want.norm(), "a far gradient"
                assert torch.isfinite(found).all(), "a gradient that is not finite"
                return [want, compressor.stats().ratio]

            yield f"activations of {where} at {bits} bits", run


PARTS: dict[str, Callable[[], Iterator[Check]]] = {
    "refusals": refusals, "layers": layers, "manifold": manifold, "methods": methods, "relations": relations, "runs": runs,
    "compiled": compiled, "autocast": autocast, "activations": activations,
}  # fmt: skip
REAL = ("compiled", "autocast", "activations")  # a simulated device has no kernels and no storages
