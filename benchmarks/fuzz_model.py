"""From a case to its model, its data and its loss, with the layers of this library or those of a control."""

from __future__ import annotations

from math import log, sinh, sqrt
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import lorentz
from lorentz.optim import RiemannianAdam, RiemannianSGD
from lorentz.optim_base import default_radius

from .fuzz_cases import Case, Layer

__all__ = ["OURS", "Model", "dtype_of", "optimizer_of"]

OURS = SimpleNamespace(
    name="this library",
    Lorentz=lorentz.Lorentz,
    Linear=lorentz.LorentzLinear,
    Attention=lorentz.LorentzMultiheadAttention,
    Embedding=lorentz.LorentzEmbedding,
    Classifier=lorentz.LorentzClassifier,
    Edges=lorentz.FermiDirac,
    optimizers={"RiemannianAdam": RiemannianAdam, "RiemannianSGD": RiemannianSGD, "Adam": torch.optim.Adam},
)
ACTIVATIONS = {None: None, "relu": torch.relu, "gelu": F.gelu, "tanh": torch.tanh}
AT_CALL = (
    "k",
    "residual",
    "heads",
    "mask",
    "is_causal",
    "cross",
    "need_weights",
)  # not for the constructor as they are
ROWS, CLASSES = 50, 5


def dtype_of(case: Case) -> torch.dtype:
    """Dtype of parameters and inputs."""
    return {"float64": torch.float64, "bfloat16": torch.bfloat16}.get(case.precision, torch.float32)


class Positions(nn.Module):
    """Learned or sinusoidal positions added to the space coordinates of tokens."""

    def __init__(self, size: int, length: int, *, manifold: lorentz.Lorentz, learned: bool) -> None:
        super().__init__()
        self.manifold = manifold
        self.table: Any = lorentz.LearnedPositions(length, size) if learned else lorentz.SinusoidalPositions(size)

    def forward(self, x: Tensor) -> Tensor:
        positions = torch.arange(x.shape[-2]).expand(x.shape[:-1])
        return lorentz.shift(x, self.table(positions).to(x.dtype), k=self.manifold.k)


class Model(nn.Module):
    """The stack of a case between its source and its head."""

    returns_points = False

    def __init__(self, case: Case, kit: SimpleNamespace) -> None:
        super().__init__()
        self.case, self.kit = case, kit
        self.manifold = kit.Lorentz(case.k, learnable=case.learnable)
        self.table = None
        if case.table is not None:
            self.table = kit.Embedding(ROWS, case.size, manifold=self.manifold, **case.table)
        size, manifold, body = case.size, self.manifold, []
        for layer in case.layers:
            module, manifold = self._make(layer, size, manifold)
            body.append(module)
            size = layer.size
        self.body = nn.ModuleList(body)
        self.last = manifold
        self.head: nn.Module | None = None
        if case.task == "classes":
            self.head = kit.Classifier(size, CLASSES, manifold=manifold, **case.head)
        elif case.task == "edges":
            self.head = kit.Edges(manifold=manifold, **case.head)

    def _make(self, layer: Layer, size: int, manifold: Any) -> tuple[nn.Module, Any]:
        """The layer, and the manifold of its result."""
        options = {name: value for name, value in layer.options.items() if name not in AT_CALL}
        kind, out = layer.kind, manifold
        if kind == "linear":
            if layer.options["k"] is not None:
                out = self.kit.Lorentz(layer.options["k"], learnable=self.case.learnable)
            options["activation"] = ACTIVATIONS[options["activation"]]
            return self.kit.Linear(size, layer.size, manifold=manifold, manifold_out=out, **options), out
        if kind == "attention":
            return self.kit.Attention(size, layer.options["heads"], manifold=manifold, **options), out
        if kind == "positions":
            return Positions(size, self.case.length, manifold=manifold, **options), out
        if kind == "dropout":
            return lorentz.LorentzDropout(0.2, manifold=manifold), out
        made: type[nn.Module] = {
            "layer_norm": lorentz.LorentzLayerNorm, "rms_norm": lorentz.LorentzRMSNorm,
            "batch_norm": lorentz.LorentzBatchNorm, "boost": lorentz.Boost, "rotation": lorentz.Rotation,
            "transform": lorentz.LorentzTransform,
        }[kind]  # fmt: skip
        return made(size, manifold=manifold, **options), out

    def space(self, *shape: int) -> Tensor:
        """Space coordinates (*shape, size - 1) of points at the radius of the case; one at the origin, two alike."""
        case = self.case
        space = F.normalize(torch.randn(*shape, case.size - 1, dtype=torch.float64), dim=-1)
        radius = torch.full((*shape, 1), case.radius, dtype=torch.float64)
        if case.mixed:
            radius = torch.exp(log(1e-6) + torch.rand_like(radius) * (log(case.radius) - log(1e-6)))
        space *= sqrt(case.k) * torch.sinh(radius / sqrt(case.k))
        rows = space.flatten(0, -2)
        rows[0] = 0
        rows[1:2] = rows[2:3] if len(rows) > 2 else rows[1:2]
        return rows.unflatten(0, shape).to(dtype_of(case))

    @torch.no_grad()
    def start(self) -> None:
        """Put the rows of the table at the radius of the case, as far as the optimiser allows."""
        if self.table is None:
            return
        space = self.space(ROWS)
        if self.case.optimizer != "Adam":
            limit = sqrt(self.case.k) * sinh(default_radius(space.dtype))
            length = space.norm(dim=-1, keepdim=True)
            space *= (0.999 * limit / length).clamp(max=1)
        self.table.weight.copy_(self.manifold.lift(space) if self.table.weight.shape[-1] == self.case.size else space)

    def batch(self) -> dict[str, Any]:
        """Inputs, masks and targets of one step."""
        case = self.case
        shape = (case.batch, case.length) if case.source == "tokens" else (case.batch,)
        inputs = self.space(*shape) if self.table is None else torch.randint(ROWS, shape)
        n = case.batch * case.length
        out: dict[str, Any] = {"inputs": inputs, "targets": torch.rand(n), "masks": {}}
        if case.task == "classes":
            out["targets"] = torch.randint(CLASSES, (n,))
        elif case.task == "edges":
            out["targets"] = torch.randint(2, (n,)).float()
        kept = torch.rand(case.batch, case.length) < 0.7
        kept[0] = False  # a sequence of padding alone
        seen = torch.rand(case.length, case.length) < 0.7
        seen[-1] = False  # a token that may see nothing
        least = torch.finfo(dtype_of(case)).min
        bias = torch.randn(case.length, case.length).to(dtype_of(case)).masked_fill(~seen, least)
        out["masks"] = {"padding": kept, "bool": seen, "additive": bias}
        return out

    def forward(self, inputs: Tensor, masks: dict[str, Tensor]) -> Tensor:
        """Points behind the stack, one a row."""
        x: Tensor = self.manifold.lift(inputs) if self.table is None else self.table(inputs)
        for layer, module in zip(self.case.layers, self.body, strict=True):
            options = layer.options
            extra: dict[str, Any] = {"addend": x[..., 1:]} if options.get("residual") else {}
            if layer.kind == "attention":
                name = options["mask"]
                extra |= {name: options[name] for name in ("is_causal", "need_weights")}
                if options["cross"]:
                    extra["key"] = x.roll(1, 0)
                if name != "none":
                    extra["key_padding_mask" if name == "padding" else "attn_mask"] = masks[name]
            out = module(x, **extra)
            x = out[0] if isinstance(out, tuple) else out
        return x.flatten(0, -2)

    def loss(self, points: Tensor, targets: Tensor) -> Tensor:
        """Loss of the task."""
        task = self.case.task
        if task == "classes":
            assert self.head is not None
            return F.cross_entropy(self.head(points).float(), targets)
        others = points.roll(1, 0)
        if task == "edges":
            assert self.head is not None
            return F.binary_cross_entropy_with_logits(self.head(points, others).float(), targets)
        distance = self.last.dist(points, others)
        return F.mse_loss(distance, targets.to(distance))


def optimizer_of(model: Model) -> torch.optim.Optimizer:
    """The optimiser of the case, over all parameters."""
    case = model.case
    # Curvatures and rapidities are exponents: twenty steps at rate 1 would multiply coordinates by exp(20).
    exponents, others = [], []
    for name, parameter in model.named_parameters():
        if parameter.numel():
            (exponents if name.endswith(("rho", "rapidity")) else others).append(parameter)
    groups = [{"params": others}, {"params": exponents, "lr": min(case.lr, 0.1)}]
    options: dict[str, Any] = {"lr": case.lr, "weight_decay": case.decay}
    if case.momentum:
        options["momentum"] = case.momentum
    made: torch.optim.Optimizer = model.kit.optimizers[case.optimizer](groups, **options)
    return made
