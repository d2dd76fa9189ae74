"""The subspace: planted ones are found, the full one is ordinary training, and what is stored comes back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deltas
from deltas import Adapter, BitFit, DeltaError, FullFineTuning, LoRA, PrefixTuning
from deltas.subspace import (
    IntrinsicSubspace,
    TaskLoss,
    full_space,
    pca_subspace,
    random_subspace,
    shuffled,
)
from deltas.subspace.interpolation import random_weights
from deltas.subspace.sharing import shared_passes

from .backbones import backbone, inputs, nudge, state

SIZES = {"LoRA": 300, "Adapter": 410, "Prefix": 260}


def planted(tasks: int, dim: int, seed: int = 0) -> tuple[dict[str, dict[str, Tensor]], dict[str, Tensor]]:
    """Solutions of every method that are linear in `dim` hidden numbers of the task, and the maps."""
    generator = torch.Generator().manual_seed(seed)
    maps = {
        name: (3.0 + i) * torch.randn(size, dim, generator=generator) / size**0.5
        for i, (name, size) in enumerate(SIZES.items())
    }
    hidden = torch.randn(tasks, dim, generator=generator)
    return {f"task{i}": {name: maps[name] @ z for name, z in maps_of(maps, z)} for i, z in enumerate(hidden)}, maps


def maps_of(maps: dict[str, Tensor], z: Tensor) -> list[tuple[str, Tensor]]:
    return [(name, z) for name in maps]


def distance_loss(solutions: dict[str, dict[str, Tensor]]) -> Any:
    """The loss of a task is the squared distance of every method's vector from its solution, in units of its length."""

    def loss(task: str, vectors: Any, step: int) -> Tensor:
        row = solutions[task]
        parts = [(vectors[name] - row[name]).square().sum() / row[name].square().sum() for name in row]
        return torch.stack(parts).mean()

    return loss


def test_a_planted_subspace_is_found() -> None:
    solutions, maps = planted(24, 3)
    unseen = solutions.pop("task23")
    space = IntrinsicSubspace(3, squared=True).approximate(solutions, distance_loss(solutions), steps=2500, lr=2e-2)
    for name in SIZES:  # the projector's columns lie in the planted directions
        inside = torch.linalg.qr(maps[name]).Q
        found = torch.linalg.qr(space.codec(name).projector.matrix().detach()).Q
        assert float(torch.linalg.svdvals(inside.T @ found).min()) > 0.98
    wanted = unseen["LoRA"]
    point = space.optimise(lambda v, step: (v - wanted).square().sum() / wanted.square().sum(), via="LoRA", steps=600)
    chance = random_subspace(solutions, 3)
    other = chance.optimise(lambda v, step: (v - wanted).square().sum() / wanted.square().sum(), via="LoRA", steps=600)
    for name, true in unseen.items():  # found through one method, it is that of the others too
        missed = float((space.decode(name, point) - true).detach().norm() / true.norm())
        assert missed < 0.25, (name, missed)
        assert float((chance.decode(name, other) - true).detach().norm() / true.norm()) > 0.8


def test_transfer_fails_where_tasks_are_shuffled() -> None:
    solutions, _ = planted(24, 3)
    unseen = solutions.pop("task23")
    mixed = shuffled(solutions)
    space = IntrinsicSubspace(3, squared=True).approximate(mixed, steps=1500, lr=2e-2)
    wanted = unseen["LoRA"]
    point = space.optimise(lambda v, step: (v - wanted).square().sum() / wanted.square().sum(), via="LoRA", steps=600)
    assert float((space.decode("LoRA", point) - wanted).detach().norm() / wanted.norm()) < 0.3
    true = unseen["Adapter"]
    assert float((space.decode("Adapter", point) - true).detach().norm() / true.norm()) > 0.6


def test_components_keep_as_many_tasks_as_they_are() -> None:
    solutions, _ = planted(5, 8)
    space = pca_subspace(solutions, 5)
    table = torch.stack([torch.cat([row[n] / space.codec(n).scale for n in SIZES]) for row in solutions.values()])
    _, values, _ = torch.linalg.svd(table.double(), full_matrices=False)
    for row in solutions.values():
        for name in SIZES:
            again = space.decode(name, space.encode(name, row[name]))
            assert torch.allclose(again, row[name], atol=1e-4)
    two = pca_subspace(solutions, 2)
    joint = torch.cat([two.codec(n).projector.matrix() for n in SIZES]).double()
    projected = table.double() @ torch.linalg.pinv(joint).T @ joint.T
    left = float((projected - table).square().sum())
    assert left == pytest.approx(float(values[2:].square().sum()), rel=1e-4)  # Eckart-Young
    assert pca_subspace(solutions, 100).dim == 5


def test_shuffled_solutions_are_all_there_and_none_in_its_place() -> None:
    solutions, _ = planted(6, 3)
    mixed = shuffled(solutions)
    own = {name: {t: row[name] for t, row in solutions.items()} for name in SIZES}
    sources = {t: {n: next(s for s, v in own[n].items() if torch.equal(v, mixed[t][n])) for n in SIZES} for t in mixed}
    for name in SIZES:
        assert sorted(row[name] for row in sources.values()) == sorted(solutions)
    assert all(len(set(row.values())) == len(SIZES) for row in sources.values())
    with pytest.raises(DeltaError, match="one task"):
        shuffled({"a": solutions["task0"]})


def test_weights() -> None:
    table = torch.stack([random_weights(3, seed=1, step=i) for i in range(20_000)]).double()
    assert torch.allclose(table.sum(1), torch.ones(len(table)).double(), atol=1e-6)
    assert torch.allclose(table.mean(0), torch.full((3,), 1 / 3).double(), atol=0.01)
    assert torch.allclose(table.var(0), torch.full((3,), 1 / 18).double(), atol=0.002)  # uniform on the simplex
    table = torch.stack([random_weights(3, kind="stick-breaking", seed=1, step=i) for i in range(20_000)])
    assert torch.allclose(table.mean(0), torch.tensor([0.5, 0.25, 0.25]), atol=0.01)
    assert torch.equal(random_weights(4, seed=2, step=7), random_weights(4, seed=2, step=7))


def test_the_full_space_is_ordinary_training() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, LoRA(rank=2), heads=())
    given, wanted = inputs("bert"), torch.tensor([1, 0])

    def loss() -> Tensor:
        return torch.nn.functional.cross_entropy(model(**given).logits[:2], wanted)

    size = handle.flatten().numel()
    nudge(handle, 0.3)
    solutions = {"a": {"LoRA": handle.flatten()}}
    handle.unflatten(torch.zeros(size))
    space = full_space(solutions, "LoRA")
    scale = float(space.codec("LoRA").scale)
    task = TaskLoss({"LoRA": handle}, lambda method, name, batch: loss(), lambda name, step: None)
    point = space.optimise(task.of("a", "LoRA"), via="LoRA", steps=20, lr=1e-3, start=torch.zeros(size))
    # Adam does not see the scale of its parameters: a rate s times as large on the numbers is the same training.
    optimizer = torch.optim.Adam(handle.parameters(), lr=1e-3 * scale, eps=1e-8 / scale)
    first = float(loss().detach())
    for step in range(20):
        optimizer.param_groups[0]["lr"] = 1e-3 * scale * (1 - step / 20)
        optimizer.zero_grad()
        value = loss()
        value.backward()
        optimizer.step()
    assert float(loss().detach()) < first - 1e-4
    assert torch.allclose(space.decode("LoRA", point), handle.flatten(), atol=1e-4 * scale)
    assert float((space.decode("LoRA", point) - handle.flatten()).norm()) < 0.01 * float(handle.flatten().norm())


def test_transfer_to_the_same_method_is_the_identity() -> None:
    model = backbone("bert")
    handle = deltas.attach(model, BitFit(), heads=())
    nudge(handle)
    vector = handle.flatten()
    space = pca_subspace({"a": {"BitFit": vector}, "b": {"BitFit": torch.randn_like(vector)}}, 2)
    handle.unflatten(torch.zeros_like(vector))
    given = space.transfer(space.encode("BitFit", vector), to=handle)
    assert torch.allclose(given, vector, atol=1e-5)
    assert torch.allclose(handle.flatten(), vector, atol=1e-5)


@pytest.mark.parametrize(
    "spec", [LoRA(rank=2), Adapter(bottleneck=4), PrefixTuning(length=3), BitFit(), FullFineTuning()]
)
@pytest.mark.parametrize("name", ["bert", "lorentz"])
def test_gradients_reach_an_applied_vector(name: str, spec: Any) -> None:
    model = backbone(name)
    handle = deltas.attach(model, spec, heads=())
    nudge(handle)
    before = state(model)
    given = inputs(name)

    def loss() -> Tensor:
        out = model(**given)
        return out[0].square().mean()

    value = loss()
    grads = torch.autograd.grad(value, list(handle.parameters()), allow_unused=True)
    order = {id(p): g for p, g in zip(handle.parameters(), grads, strict=True)}
    from deltas.vector import trained_names

    named = {**handle.parts(), **handle.owned()}
    expected = torch.cat(
        [
            (torch.zeros_like(named[k]) if order[id(named[k])] is None else order[id(named[k])]).reshape(-1)
            for k in trained_names(handle)
        ]
    )
    vector = handle.flatten().requires_grad_(True)
    handle.unflatten(torch.zeros_like(vector))
    with handle.applied(vector):
        again = loss()
    assert torch.allclose(again, value, rtol=1e-5)
    (found,) = torch.autograd.grad(again, [vector])
    assert torch.allclose(found, expected, atol=1e-5 * max(1.0, float(expected.abs().max())))
    with pytest.raises(RuntimeError, match="inside"), handle.applied(vector.detach()):
        raise RuntimeError("inside")
    handle.unflatten(vector.detach())
    assert all(torch.allclose(before[k], v, atol=1e-6) for k, v in state(model).items())
    assert all(isinstance(p, torch.nn.Parameter) for p in model.parameters())


def test_passes_of_one_batch_share_what_lies_below_the_deltas() -> None:
    model = backbone("bert")
    specs = {"LoRA": LoRA(rank=2, layers=(1,)), "Adapter": Adapter(bottleneck=4, layers=(1,))}
    made = {}
    for name, spec in specs.items():
        made[name] = deltas.attach(model, spec, name=name, heads=())
        nudge(made[name])
        made[name].disable()
    calls: list[str] = []
    bert = model.bert
    for path, module in {
        "embeddings": bert.embeddings.word_embeddings,
        "first": bert.encoder.layer[0].attention,
    }.items():
        module.register_forward_hook(lambda *_, path=path: calls.append(path))

    def out(handle: Any) -> Tensor:
        from deltas.subspace.objective import only

        only(handle)
        found: Tensor = model(**inputs("bert")).logits
        return found

    alone = {name: out(handle) for name, handle in made.items()}
    calls.clear()
    with shared_passes(model, list(made.values())):
        together = {name: out(handle) for name, handle in made.items()}
    assert calls == ["embeddings", "first"]
    for name in made:
        assert torch.equal(alone[name], together[name])
    assert not torch.allclose(alone["LoRA"], alone["Adapter"])
    assert "forward" not in bert.embeddings.__dict__


def test_a_space_carries_the_start_of_its_deltas(tmp_path: Path) -> None:
    solved, fresh = backbone("bert"), backbone("bert")
    torch.manual_seed(1)
    one = deltas.attach(solved, Adapter(bottleneck=4), heads=())
    nudge(one)
    torch.manual_seed(2)
    other = deltas.attach(fresh, Adapter(bottleneck=4), heads=())
    assert not torch.equal(one.start(), other.start())
    rows = {"a": {"Adapter": one.flatten()}, "b": {"Adapter": torch.randn(one.flatten().numel())}}
    pca_subspace(rows, 2, starts={"Adapter": one.start()}).save(tmp_path)
    space = IntrinsicSubspace.load(tmp_path)
    space.transfer(space.encode("Adapter", one.flatten()), to=other)
    assert torch.equal(other.start(), one.start())
    assert torch.allclose(fresh(**inputs("bert")).logits, solved(**inputs("bert")).logits, atol=1e-4)
    with pytest.raises(DeltaError, match="where these are"):
        deltas.attach(backbone("bert"), BitFit(), heads=()).begin(torch.zeros(3))


def test_a_combination_begins_where_its_drawn_part_did() -> None:
    spec = Adapter(bottleneck=4) + BitFit()
    solved, fresh = backbone("bert"), backbone("bert")
    torch.manual_seed(1)
    one = deltas.attach(solved, spec, heads=())
    nudge(one)
    torch.manual_seed(2)
    other = deltas.attach(fresh, spec, heads=())
    other.begin(one.start())
    other.unflatten(one.flatten())
    assert torch.allclose(fresh(**inputs("bert")).logits, solved(**inputs("bert")).logits, atol=1e-5)
    with pytest.raises(DeltaError, match="another backbone"):
        other.begin(one.start() + 1.0)


def test_a_delta_that_chose_its_numbers_takes_no_others() -> None:
    spec = deltas.SparseAdapter(inner=LoRA(rank=2), score="magnitude")
    one, other = (deltas.attach(backbone("bert"), spec, heads=()) for _ in range(2))
    with pytest.raises(DeltaError, match="chose its parameters"):
        other.begin(one.start())


def test_a_start_in_double_precision_comes_back_to_the_bit() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3).double())
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, dtype=torch.float64))
    before = state(model)
    handle = deltas.attach(model, FullFineTuning(), host={"q": "0"}, heads=())
    handle.unflatten(torch.randn(handle.flatten().numel()))
    handle.unflatten(torch.zeros(handle.flatten().numel()))
    assert all(torch.equal(before[k], v) for k, v in state(model).items())


class InPlace(torch.nn.Module):
    """Writes into what its first layer gives."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = torch.nn.Linear(4, 4), torch.nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x)
        h += 1.0
        found: Tensor = self.second(h)
        return found


def test_a_shared_pass_that_is_written_into_is_made_again() -> None:
    model, x = InPlace().eval(), torch.randn(3, 4)
    made = []
    for name in ("one", "two"):
        made.append(deltas.attach(model, LoRA(rank=1, roles=("q",)), name=name, host={"q": "second"}, heads=()))
        made[-1].disable()
    alone = model(x)  # a fresh LoRA changes nothing
    with shared_passes(model, made):
        for handle in made:
            with torch.no_grad():
                handle.enable()
                assert torch.equal(model(x), alone)
                handle.disable()


@pytest.mark.parametrize("kind", ["dense", "low-rank", "fastfood", "block"])
def test_what_is_stored_comes_back(kind: str, tmp_path: Path) -> None:
    solutions, _ = planted(4, 2)
    space = IntrinsicSubspace(4, kind, interpolation="stick-breaking", seed=5).approximate(solutions, steps=3)
    space.save(tmp_path)
    again = IntrinsicSubspace.load(tmp_path)
    for name in SIZES:
        point = space.encode(name, solutions["task1"][name])
        assert torch.equal(again.encode(name, solutions["task1"][name]), point)
        assert torch.equal(again.decode(name, point), space.decode(name, point))
    assert (again.dim, again.interpolation, again.seed) == (4, "stick-breaking", 5)
    file = tmp_path / "subspace.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    with pytest.raises(DeltaError, match="broken"):
        IntrinsicSubspace.load(tmp_path)
    file.unlink()
    with pytest.raises(DeltaError, match="is not there"):
        IntrinsicSubspace.load(tmp_path)


def test_controls_are_stored_too(tmp_path: Path) -> None:
    solutions, _ = planted(4, 2)
    for place, space in enumerate((random_subspace(solutions, 3), pca_subspace(solutions, 2))):
        space.save(tmp_path / str(place))
        again = IntrinsicSubspace.load(tmp_path / str(place))
        point = torch.randn(space.dim)
        assert torch.equal(again.decode("LoRA", point), space.decode("LoRA", point))
        assert torch.allclose(again.encode("LoRA", again.decode("LoRA", point)), point, atol=1e-4)


def test_mixed_projectors_and_sizes() -> None:
    solutions, _ = planted(4, 2)
    kinds = {"LoRA": "dense", "Adapter": "block", "Prefix": "fastfood"}
    space = IntrinsicSubspace(4, kinds, options={"Prefix": {"gaussian": "trained"}})
    seen: list[float] = []
    space.approximate(solutions, steps=200, callback=lambda step, row: seen.append(row["reconstruction"]))
    assert sum(seen[-8:]) < 0.8 * sum(seen[:8])
    assert space.sizes == SIZES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: {}, "no solutions"),
        (lambda s: {**s, "b": {"LoRA": s["task0"]["LoRA"]}}, "lacks a solution"),
        (lambda s: {**s, "b": {**s["task0"], "LoRA": torch.zeros(7)}}, "shape"),
        (lambda s: {"b": {**s["task0"], "LoRA": torch.full((300,), float("nan"))}}, "not finite"),
        (lambda s: {"b": {**s["task0"], "LoRA": torch.zeros(300)}}, "all zero|are zero"),
    ],
)
def test_solutions_that_cannot_be(change: Any, message: str) -> None:
    solutions, _ = planted(2, 2)
    with pytest.raises(DeltaError, match=message):
        IntrinsicSubspace(2).approximate(change(solutions), steps=1)


def test_errors_name_what_is_near() -> None:
    solutions, _ = planted(2, 2)
    space = IntrinsicSubspace(2)
    with pytest.raises(DeltaError, match="approximate"):
        space.decode("LoRA", torch.zeros(2))
    space.approximate(solutions, steps=1)
    with pytest.raises(DeltaError, match="LoRA"):
        space.decode("Lora", torch.zeros(2))
    with pytest.raises(DeltaError, match="2 coordinates"):
        space.decode("LoRA", torch.zeros(3))
    with pytest.raises(DeltaError, match="300 parameters"):
        space.encode("LoRA", torch.zeros(3))
    with pytest.raises(DeltaError, match="dense"):
        IntrinsicSubspace(2, "dens")
    with pytest.raises(DeltaError, match="simplex"):
        IntrinsicSubspace(2, interpolation="simple")
    with pytest.raises(DeltaError, match=r"method in starts 'lora'.*'LoRA'"):
        space.prepare(solutions, starts={"lora": torch.zeros(300)})
    with pytest.raises(DeltaError, match="is a file"):
        IntrinsicSubspace.load(__file__)


def test_training_that_cannot_be() -> None:
    solutions, _ = planted(2, 2)
    space = IntrinsicSubspace(2)
    for steps in (0, -1):
        with pytest.raises(DeltaError, match="one step"):
            space.approximate(solutions, steps=steps)
        with pytest.raises(DeltaError, match="one step"):
            space.prepare(solutions).optimise(lambda vector, step: vector.sum(), via="LoRA", steps=steps)
    with pytest.raises(DeltaError, match="step 1 is nan"):
        space.optimise(lambda vector, step: vector.sum() * (float("nan") if step else 1.0), via="LoRA", steps=4)
    with pytest.raises(DeltaError, match="step 0 is inf"):
        space.approximate(solutions, lambda task, vectors, step: vectors["LoRA"].sum() + float("inf"), steps=4)


def test_points_of_the_full_space_are_its_vectors() -> None:
    vector = torch.randn(70_000)  # a matrix of this size would take 20 GB
    space = full_space({"a": {"LoRA": vector}}, "LoRA")
    assert torch.allclose(space.encode("LoRA", vector), vector / vector.norm(), rtol=1e-5)
