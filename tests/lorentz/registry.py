"""Every layer as one case of the conformance suite. A new layer joins all checks by one entry of ``CASES``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Generator, Tensor, nn

from lorentz import (
    Boost,
    FermiDirac,
    LearnedPositions,
    Lorentz,
    LorentzBatchNorm,
    LorentzClassifier,
    LorentzConv1d,
    LorentzConv2d,
    LorentzDropout,
    LorentzEmbedding,
    LorentzGraphAttention,
    LorentzGraphConv,
    LorentzLayerNorm,
    LorentzLinear,
    LorentzMultiheadAttention,
    LorentzPooling,
    LorentzRMSNorm,
    LorentzTransform,
    LorentzTransformerDecoder,
    LorentzTransformerDecoderLayer,
    LorentzTransformerEncoder,
    LorentzTransformerEncoderLayer,
    Rotation,
    SinusoidalPositions,
)
from lorentz.linear import VARIANTS
from lorentz.math import lift

__all__ = ["CASES", "DIM", "Case", "Constant", "Draw", "Index", "Mask", "Points", "Space"]

DIM = 5  # one time coordinate, two heads of one plane each
WIDTH = 4  # size of what a layer to another size returns
ROWS = 6  # of tables and positions


@dataclass(frozen=True)
class Draw:
    """What inputs are drawn for: points of `dim` coordinates, their space part normal.

    `spread` is its deviation in units of sqrt(k), one for each row of the last axis of `batch` or one for all.
    """

    manifold: Lorentz
    dim: int
    batch: tuple[int, ...]
    spread: tuple[float, ...]
    generator: Generator

    def normal(self, *shape: int) -> Tensor:
        """Normal numbers (*batch, *shape) in float64."""
        return torch.randn(*self.batch, *shape, generator=self.generator, dtype=torch.float64)


class Input(Protocol):
    """How one argument of ``forward`` is drawn."""

    def __call__(self, draw: Draw, /) -> Tensor: ...


@dataclass(frozen=True)
class Points:
    """Points (*batch, *extra, dim)."""

    extra: tuple[int, ...] = ()

    def __call__(self, draw: Draw) -> Tensor:
        k = draw.manifold.k.detach()
        spread = torch.tensor(draw.spread, dtype=torch.float64).view(-1, *[1] * (len(self.extra) + 1))
        space = draw.normal(*self.extra, draw.dim - 1)
        return lift((space * spread * k.sqrt()).view(space.shape), k=k)


@dataclass(frozen=True)
class Space:
    """What joins space coordinates, (*batch, *extra, width)."""

    width: int
    extra: tuple[int, ...] = ()

    def __call__(self, draw: Draw) -> Tensor:
        return draw.normal(*self.extra, self.width) / 2


@dataclass(frozen=True)
class Index:
    """Integers (*batch,) from `low` up to ``ROWS``."""

    low: int = 0

    def __call__(self, draw: Draw) -> Tensor:
        return torch.randint(self.low, ROWS, draw.batch, generator=draw.generator)


@dataclass(frozen=True)
class Mask:
    """Bools (*batch, length), the first False."""

    length: int

    def __call__(self, draw: Draw) -> Tensor:
        return (torch.arange(self.length) > 0).expand(*draw.batch, self.length).contiguous()


@dataclass(frozen=True)
class Constant:
    """A tensor without a batch dimension, the same whatever is drawn."""

    value: Tensor

    def __call__(self, draw: Draw) -> Tensor:
        return self.value.clone()


@dataclass(frozen=True)
class Case:
    """One layer in one configuration.

    Attributes
    ----------
    build : manifold and size of a point to the layer
    inputs : how the arguments of ``forward`` are drawn, by name
    options : other arguments of ``forward``
    returns_points : whether the result is on the hyperboloid of ``manifold_out`` or ``manifold``
    train : mode
    random : whether two calls differ
    per_row : whether a row of the batch is treated as if it were alone
    sized : whether the layer knows the size of its points
    layers : how many layers it is made of, each of which rounds
    exports_onnx : whether ONNX has operators for it; `because` says why not
    """

    name: str
    build: Callable[[Lorentz, int], nn.Module]
    inputs: Mapping[str, Input] = field(default_factory=lambda: {"x": Points()})
    options: Mapping[str, Any] = field(default_factory=dict)
    returns_points: bool = True
    train: bool = True
    random: bool = False
    per_row: bool = True
    sized: bool = True
    layers: int = 1
    exports_onnx: bool = True
    because: str = ""

    def layer(
        self,
        k: float = 1.0,
        *,
        learnable: bool = True,
        dim: int = DIM,
        dtype: torch.dtype = torch.float64,
        seed: int = 0,
    ) -> nn.Module:
        """The layer with parameters away from their initial values, of which zeros and ones would hide errors."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            layer = self.build(Lorentz(k, learnable=learnable), dim)
            with torch.no_grad():
                for name, parameter in layer.named_parameters():
                    if not name.endswith("rho"):
                        parameter += torch.randn_like(parameter) / 4
        return layer.to(dtype).train(self.train)

    def draw(
        self,
        layer: nn.Module,
        *,
        dim: int = DIM,
        batch: tuple[int, ...] = (3,),
        spread: tuple[float, ...] = (0.5,),
        dtype: torch.dtype = torch.float64,
    ) -> dict[str, Tensor]:
        """Arguments of ``forward`` that fit the layer."""
        draw = Draw(getattr(layer, "manifold", None) or Lorentz(), dim, batch, spread, Generator().manual_seed(1))
        drawn = {name: kind(draw) for name, kind in self.inputs.items()}
        return {name: x.to(dtype) if x.is_floating_point() else x for name, x in drawn.items()}

    def batched(self, inputs: Mapping[str, Tensor], change: Callable[[Tensor], Tensor]) -> dict[str, Tensor]:
        """Arguments of which those with a batch dimension are changed."""
        return {name: x if isinstance(self.inputs[name], Constant) else change(x) for name, x in inputs.items()}

    def call(self, layer: Callable[..., Tensor], inputs: Mapping[str, Tensor]) -> Tensor:
        """Result of the layer, the same random numbers drawn at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(2)
            return layer(**inputs, **self.options)

    def __str__(self) -> str:
        return self.name


_LINEAR: dict[str, dict[str, Any]] = {
    "no-bias": {"bias": False},
    "centred": {"centred": True},
    "activation": {"activation": torch.tanh},
    "dropout": {"dropout": 0.3},
    "addend": {},
    "manifold_out": {"activation": torch.tanh},  # without one, the k of the input would not enter
}


def _linear(variant: str, name: str) -> Case:
    def build(manifold: Lorentz, dim: int) -> nn.Module:
        options = dict(_LINEAR.get(name, {}))
        if name == "manifold_out":
            options[name] = Lorentz(1.5 * float(manifold.k.detach()), learnable=manifold.learnable)
        return LorentzLinear(dim, WIDTH, manifold=manifold, variant=variant, **options)

    inputs: dict[str, Input] = {"x": Points()}
    if name == "addend":
        inputs[name] = Space(WIDTH - 1)
    return Case("-".join(filter(None, ("LorentzLinear", variant, name))), build, inputs, random=name == "dropout")


def _attention(**options: Any) -> Callable[[Lorentz, int], nn.Module]:
    return lambda manifold, dim: LorentzMultiheadAttention(dim, 2, manifold=manifold, **options)


def _norm_that_has_seen(manifold: Lorentz, dim: int) -> nn.Module:
    layer = LorentzBatchNorm(dim, manifold=manifold, momentum=1.0)
    layer(manifold.lift(1 + torch.randn(8, dim - 1)).detach())
    return layer


def _frozen(manifold: Lorentz, dim: int) -> nn.Module:
    orthogonal = torch.linalg.qr(torch.randn(dim - 1, dim - 1, dtype=torch.float64))[0]
    return Rotation.from_matrix(orthogonal, manifold=manifold).freeze()


def _rotation(parametrisation: str) -> Case:
    return Case(
        f"Rotation-{parametrisation}",
        lambda manifold, dim: Rotation(dim, manifold=manifold, parametrisation=parametrisation),
        exports_onnx=False,
        because="ONNX has no matrix exponential and no linear solve: freeze() first",
    )


def _graph(layer: type[nn.Module], *sizes: int, **options: Any) -> Callable[[Lorentz, int], nn.Module]:
    return lambda manifold, dim: layer(dim, *sizes, manifold=manifold, **options)


def _encoder(**options: Any) -> Callable[[Lorentz, int], nn.Module]:
    return lambda manifold, dim: LorentzTransformerEncoderLayer(dim, 2, 7, manifold=manifold, **options)


def _decoder(**options: Any) -> Callable[[Lorentz, int], nn.Module]:
    return lambda manifold, dim: LorentzTransformerDecoderLayer(dim, 2, 7, manifold=manifold, **options)


def _stack(kind: type[nn.Module]) -> Callable[[Lorentz, int], nn.Module]:
    return lambda manifold, dim: kind(2, dim, 2, 7, manifold=manifold)


_TOKENS = Points((3,))
_QUERY = {"query": _TOKENS}
_BIAS = torch.linspace(-1, 1, 18, dtype=torch.float64).view(2, 3, 3)  # for each head, query and key
_EDGES = Constant(torch.tensor([[1, 2, 3, 4, 1, 4], [2, 1, 2, 3, 4, 4]]))  # one a loop; node 0 of 5 has none
_WEIGHTS = Constant(torch.tensor([0.5, 1.0, 2.0, 0.3, 1.5, 1.0], dtype=torch.float64))
_NODES = {"x": Points((5,)), "edge_index": _EDGES}
_CROSS = {"query": _TOKENS, "key": Points((2,)), "value": Points((2,)), "addend": Space(DIM - 1, (3,))}

_PADDED = {"x": _TOKENS, "key_padding_mask": Mask(3)}
_MEMORY = {"x": _TOKENS, "memory": Points((2,))}

CASES: tuple[Case, ...] = (
    *(_linear(variant, name) for variant in VARIANTS for name in ("", *_LINEAR)),
    Case("LorentzMultiheadAttention-self", _attention(), _QUERY),
    Case("LorentzMultiheadAttention-causal", _attention(), _QUERY, {"is_causal": True}),
    Case("LorentzMultiheadAttention-cross", _attention(), _CROSS),
    Case("LorentzMultiheadAttention-rotary", _attention(rotary_base=100.0), _QUERY, {"is_causal": True}),
    Case("LorentzMultiheadAttention-padding", _attention(bias=False), {**_QUERY, "key_padding_mask": Mask(3)}),
    Case("LorentzMultiheadAttention-mask", _attention(), {**_QUERY, "attn_mask": Constant(_BIAS)}),
    Case("LorentzMultiheadAttention-centred", _attention(centred=True), _QUERY),
    Case("LorentzMultiheadAttention-relative", _attention(centred=True, logits="relative"), _QUERY),
    Case("LorentzMultiheadAttention-dropout", _attention(dropout=0.3), _QUERY, random=True),
    Case("LorentzGraphConv", _graph(LorentzGraphConv, WIDTH), _NODES),
    Case("LorentzGraphConv-row", _graph(LorentzGraphConv, WIDTH, normalisation="row", self_loops=False), _NODES),
    Case(
        "LorentzGraphConv-unbounded-weights",
        _graph(LorentzGraphConv, WIDTH, variant="unbounded", activation=torch.tanh),
        {**_NODES, "edge_weight": _WEIGHTS},
    ),
    Case("LorentzGraphConv-dropout", _graph(LorentzGraphConv, WIDTH, dropout=0.3), _NODES, random=True),
    Case("LorentzGraphAttention", _graph(LorentzGraphAttention, DIM, 2), _NODES),
    Case("LorentzGraphAttention-no-loops", _graph(LorentzGraphAttention, DIM, 1, self_loops=False), _NODES),
    Case(
        "LorentzGraphAttention-weights",
        _graph(LorentzGraphAttention, DIM, 2, bias=False),
        {**_NODES, "edge_weight": _WEIGHTS},
    ),
    Case("LorentzGraphAttention-dropout", _graph(LorentzGraphAttention, DIM, 2, dropout=0.3), _NODES, random=True),
    Case("LorentzConv1d", _graph(LorentzConv1d, WIDTH, 3, padding=1), {"x": Points((4,))}),
    Case(
        "LorentzConv1d-strided",
        _graph(LorentzConv1d, WIDTH, 2, stride=2, dilation=2, variant="paper", activation=torch.tanh),
        {"x": Points((5,)), "addend": Space(WIDTH - 1, (2,))},
    ),
    Case("LorentzConv2d", _graph(LorentzConv2d, WIDTH, (2, 3), padding=(0, 1), stride=(1, 2)), {"x": Points((3, 4))}),
    Case("LorentzConv2d-dropout", _graph(LorentzConv2d, WIDTH, 2, dropout=0.3), {"x": Points((2, 3))}, random=True),
    Case("LorentzLayerNorm", lambda manifold, dim: LorentzLayerNorm(dim, manifold=manifold)),
    Case("LorentzLayerNorm-no-bias", lambda manifold, dim: LorentzLayerNorm(dim, manifold=manifold, bias=False)),
    Case("LorentzRMSNorm", lambda manifold, dim: LorentzRMSNorm(dim, manifold=manifold)),
    Case("LorentzBatchNorm-train", lambda manifold, dim: LorentzBatchNorm(dim, manifold=manifold), per_row=False),
    Case("LorentzBatchNorm-eval", _norm_that_has_seen, train=False),
    Case("LorentzDropout", lambda manifold, _: LorentzDropout(0.4, manifold=manifold), random=True, sized=False),
    Case("LorentzEmbedding", lambda manifold, dim: LorentzEmbedding(ROWS, dim, manifold=manifold), {"index": Index()}),
    Case(
        "LorentzEmbedding-padding_idx",
        lambda manifold, dim: LorentzEmbedding(ROWS, dim, manifold=manifold, padding_idx=0),
        {"index": Index(low=1)},
    ),
    Case(
        "LearnedPositions",
        lambda _, dim: LearnedPositions(ROWS, dim),
        {"positions": Index()},
        returns_points=False,
    ),
    Case("SinusoidalPositions", lambda _, dim: SinusoidalPositions(dim), {"positions": Index()}, returns_points=False),
    Case(
        "LorentzClassifier-prototype",
        lambda manifold, dim: LorentzClassifier(dim, WIDTH, manifold=manifold, kind="prototype"),
        returns_points=False,
    ),
    Case(
        "LorentzClassifier-relative",
        lambda manifold, dim: LorentzClassifier(dim, WIDTH, manifold=manifold, kind="relative"),
        returns_points=False,
    ),
    Case(
        "LorentzClassifier-mlr",
        lambda manifold, dim: LorentzClassifier(dim, WIDTH, manifold=manifold, kind="mlr"),
        returns_points=False,
    ),
    Case(
        "FermiDirac",
        lambda manifold, _: FermiDirac(manifold=manifold, learnable=True),
        {"x": Points(), "y": Points()},
        returns_points=False,
        sized=False,
    ),
    Case("Boost", lambda manifold, dim: Boost(dim, manifold=manifold)),
    _rotation("matrix_exp"),
    _rotation("cayley"),
    _rotation("householder"),
    Case("Rotation-frozen", _frozen),
    Case(
        "LorentzTransform",
        lambda manifold, dim: LorentzTransform(dim, manifold=manifold),
        exports_onnx=False,
        because="its rotation is learnable: freeze() first",
    ),
    Case(
        "LorentzTransform-frozen-boost_first",
        lambda manifold, dim: LorentzTransform(dim, manifold=manifold, order="boost_first").freeze(),
    ),
    Case("LorentzTransformerEncoderLayer", _encoder(), _PADDED, layers=4),
    Case("LorentzTransformerEncoderLayer-post", _encoder(norm="post"), {"x": _TOKENS}, {"is_causal": True}, layers=4),
    Case("LorentzTransformerEncoderLayer-none", _encoder(norm="none", variant="paper"), {"x": _TOKENS}, layers=3),
    Case(
        "LorentzTransformerEncoderLayer-dropout",
        _encoder(dropout=0.3, attention_dropout=0.3, bias=False),
        {"x": _TOKENS},
        random=True,
    ),
    Case("LorentzTransformerDecoderLayer", _decoder(), _MEMORY, layers=6),
    Case("LorentzTransformerDecoderLayer-post", _decoder(norm="post"), _MEMORY, layers=6),
    Case("LorentzTransformerEncoder", _stack(LorentzTransformerEncoder), {"x": _TOKENS}, layers=9),
    Case("LorentzTransformerDecoder", _stack(LorentzTransformerDecoder), _MEMORY, layers=13),
    Case("LorentzPooling", lambda manifold, _: LorentzPooling(manifold=manifold), _PADDED, sized=False),
)
