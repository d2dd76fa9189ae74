"""Back-off mixture of a neural, a count and a type distribution of facts, with weights from held-out facts."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from relsim.distribution import FactDistribution, on_cpu
from relsim.facts import Facts
from relsim.model.entitytypes import entity_types

__all__ = ["PARTS", "BackOff"]

PARTS = ("neural", "count", "type")

_BLOCK = 1024  # facts, that is rows over all entities, at a time
_ROUNDS = 500
_TOLERANCE = 1e-9  # nats a fact


class BackOff:
    r"""``P(h|r) = \sum_k v_{rk} P_k(h|r)`` and ``P(t|h,r) = \sum_k w_{rk} P_k(t|h,r)`` over three parts k.

    - neural: the given fact distribution;
    - count: ``(c_r(e) + a b(e)) / (n_r + a)``, what the relation was seen with, the rest by how often an entity stands on
      that side of any relation. The tail does not look at the head: distinct facts never repeat;
    - type: ``P(type | r) P(e | type)`` for the head, ``P(type | r, type of h) P(e | type)`` for the tail, each backed
      off in the same way to the types of the relation and of the side.

    The weights of a relation are those that make its held-out facts most likely (expectation maximisation on a concave
    function), drawn toward the weights of all relations together by as much as ``prior`` facts.

    Parameters
    ----------
    dist
        The neural part; a copy on the CPU of a model that lies elsewhere.
    facts
        What it was fitted to; the counts are taken from here, so these must not be the held-out facts.
    types
        int64 ``(E,)``: a type of each entity; by default :func:`relsim.model.entitytypes.entity_types`.
    smoothing
        a > 0: facts the back-off counts for.
    prior
        Held-out facts that the common weights count for in those of one relation, at least 0.

    Raises
    ------
    ValueError
        For facts of other sizes than the model's, or arguments out of range.

    References
    ----------
    Jelinek and Mercer, Interpolated estimation of Markov source parameters from sparse data, 1980.
    """

    def __init__(
        self,
        dist: FactDistribution,
        facts: Facts,
        *,
        types: Tensor | None = None,
        smoothing: float = 30.0,
        prior: float = 20.0,
    ) -> None:
        sizes, expected = (facts.num_entities, facts.num_relations), (dist.num_entities, dist.num_relations)
        if sizes != expected or len(facts) == 0:
            raise ValueError(f"{len(facts)} facts of (entities, relations) = {sizes}, the model has {expected}")
        if not smoothing > 0 or not prior >= 0:
            raise ValueError(f"smoothing is {smoothing} and prior {prior}, expected above 0 and at least 0")
        self.dist, self.facts, self.smoothing, self.prior = on_cpu(dist), facts, smoothing, prior
        own = entity_types(facts) if types is None else types
        if own.shape != (facts.num_entities,) or own.dtype != torch.int64 or int(own.min()) < 0:
            raise ValueError(f"types is {own.dtype} {tuple(own.shape)}, expected ids int64 ({facts.num_entities},)")
        self.types, self.num_types = own, int(own.max()) + 1
        even = torch.full((facts.num_relations, len(PARTS)), 1.0 / len(PARTS), dtype=torch.float64)
        self.head_weight, self.tail_weight = even, even.clone()
        self._count = [self._side(ids) for ids in (facts.head, facts.tail)]
        self._type = self._type_tables()

    def _side(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """Counts of one side, sparse ``(R, E)``, and the share of each entity on that side of all relations ``(E,)``."""
        facts, weight = self.facts, self.facts.count.double()
        # Half a mention for each entity: one that was never seen on this side is unlikely, not impossible.
        share = torch.full((facts.num_entities,), 0.5, dtype=torch.float64).index_add_(0, ids, weight)
        index = torch.stack([facts.relation, ids])
        table = torch.sparse_coo_tensor(
            index, weight, (facts.num_relations, facts.num_entities), check_invariants=True
        ).coalesce()
        return table, share / share.sum()

    def _type_tables(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``P(type | r)`` of heads, ``P(type | r, head type)`` of tails, and ``P(e | type)`` on either side."""
        facts, size, weight = self.facts, self.num_types, self.facts.count.double()
        head, tail = self.types[facts.head], self.types[facts.tail]
        inside, both = [], []
        for (_, share), own in zip(self._count, (head, tail), strict=True):
            mass = torch.zeros(size, dtype=torch.float64).index_add_(0, self.types, share)
            inside.append(share / mass[self.types])
            counts = torch.zeros(facts.num_relations * size, dtype=torch.float64)
            counts = counts.index_add_(0, facts.relation * size + own, weight).view(-1, size)
            both.append(self._smooth(counts, mass))
        pair = torch.zeros(facts.num_relations * size * size, dtype=torch.float64)
        pair = pair.index_add_(0, (facts.relation * size + head) * size + tail, weight).view(-1, size, size)
        return both[0], self._smooth(pair, both[1][:, None]), inside[0], inside[1]

    def _smooth(self, counts: Tensor, background: Tensor) -> Tensor:
        return (counts + self.smoothing * background) / (counts.sum(-1, keepdim=True) + self.smoothing)

    def _count_rows(self, side: int, r: Tensor) -> Tensor:
        table, share = self._count[side]
        return self._smooth(table.index_select(0, r).to_dense(), share)

    @torch.no_grad()
    def head_parts(self, r: Tensor) -> Tensor:
        """``P_k(h | r)`` of every head: ``r (B,) -> (3, B, E)`` float64, in the order of :data:`PARTS`."""
        by_type = self._type[0][r][:, self.types] * self._type[2]
        return torch.stack([self.dist.log_prob_head(r).double().exp(), self._count_rows(0, r), by_type])

    @torch.no_grad()
    def tail_parts(self, h: Tensor, r: Tensor) -> Tensor:
        """``P_k(t | h, r)`` of every tail: ``h (B,), r (B,) -> (3, B, E)`` float64, in the order of :data:`PARTS`."""
        by_type = self._type[1][r, self.types[h]][:, self.types] * self._type[3]
        return torch.stack([self.dist.log_prob_tail(h, r).double().exp(), self._count_rows(1, r), by_type])

    def log_prob_head(self, r: Tensor) -> Tensor:
        """``log P(h | r)`` of the mixture: ``r (B,) -> (B, E)`` float64, in nats."""
        return torch.einsum("kbe,bk->be", self.head_parts(r), self.head_weight[r]).log()

    def log_prob_tail(self, h: Tensor, r: Tensor) -> Tensor:
        """``log P(t | h, r)`` of the mixture: ``h (B,), r (B,) -> (B, E)`` float64, in nats."""
        return torch.einsum("kbe,bk->be", self.tail_parts(h, r), self.tail_weight[r]).log()

    def fit(self, held_out: Facts) -> BackOff:
        """Set the weights from facts that no part has seen, and return self.

        Parameters
        ----------
        held_out
            At least one fact, over the vocabularies of the training facts.
        """
        head, tail = self._at(held_out)
        weight = held_out.count.double()
        self.head_weight = self._maximise(head, held_out.relation, weight)
        self.tail_weight = self._maximise(tail, held_out.relation, weight)
        return self

    def _maximise(self, probability: Tensor, relation: Tensor, weight: Tensor) -> Tensor:
        """Weights ``(R, 3)`` that maximise ``sum_n weight_n log(w . probability_n)``, common ones first."""
        common = probability.new_full((1, len(PARTS)), 1.0 / len(PARTS))
        common = _em(probability, torch.zeros_like(relation), weight, common, torch.zeros_like(common))
        start = common.expand(self.facts.num_relations, -1).clone()
        return _em(probability, relation, weight, start, self.prior * start)

    def part_nll(self, facts: Facts) -> dict[str, tuple[float, float]]:
        """Mean head and tail terms of the negative log-likelihood of each part and of the ``"mixture"``, nats a fact."""
        head, tail = self._at(facts)
        weight = facts.count.double() / facts.count.double().sum()
        result = {
            name: (-float(weight @ head[:, k].log()), -float(weight @ tail[:, k].log())) for k, name in enumerate(PARTS)
        }
        mixed = [(p * w[facts.relation]).sum(1).log() for p, w in ((head, self.head_weight), (tail, self.tail_weight))]
        return result | {"mixture": (-float(weight @ mixed[0]), -float(weight @ mixed[1]))}

    def nll(self, facts: Facts) -> tuple[float, float]:
        """Mean head and tail terms of the negative log-likelihood of facts under the mixture, in nats a fact."""
        return self.part_nll(facts)["mixture"]

    def _at(self, facts: Facts) -> tuple[Tensor, Tensor]:
        """Probability of each fact's head and tail under each part, ``(N, 3)`` twice."""
        if len(facts) == 0:
            raise ValueError("facts is empty: there is no likelihood to evaluate")
        head, tail = (torch.empty(len(facts), len(PARTS), dtype=torch.float64) for _ in range(2))
        for rows in self._blocks(facts):
            h, r, t = facts.head[rows], facts.relation[rows], facts.tail[rows]
            present, row = torch.unique(r, return_inverse=True)
            head[rows] = self.head_parts(present)[:, row, h].T
            tail[rows] = self.tail_parts(h, r)[:, torch.arange(len(rows)), t].T
        return head, tail

    @staticmethod
    def _blocks(facts: Facts) -> Iterator[Tensor]:
        yield from torch.split(torch.argsort(facts.relation, stable=True), _BLOCK)


def _em(probability: Tensor, group: Tensor, weight: Tensor, start: Tensor, prior: Tensor) -> Tensor:
    """Mixture weights of each group by expectation maximisation, pseudo-counts ``prior`` added; ``start (G, k)``."""
    current, before = start, -torch.inf
    for _ in range(_ROUNDS):
        joint = probability * current[group]
        total = joint.sum(1, keepdim=True)
        value = float(weight @ total.squeeze(1).log() + (prior * current.clamp(min=1e-300).log()).sum())
        if value - before < _TOLERANCE * float(weight.sum()):
            break
        before = value
        expected = prior.clone().index_add_(0, group, weight[:, None] * joint / total)
        mass = expected.sum(1, keepdim=True)
        current = torch.where(mass > 0, expected / mass, current)
    return current
