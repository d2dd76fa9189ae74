"""FactDistribution: the probability that a relation gives to a pair of entities, as two softmax layers."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy

import torch
from torch import Tensor, nn

from relsim.model.softmax import softmax_nll

__all__ = ["EntityTable", "FactDistribution", "on_cpu"]


class EntityTable(nn.Module):
    """One free feature vector an entity.

    Parameters
    ----------
    num_entities, dim
        Shape of the table.
    generator
        Source of the initial values, normal with deviation ``dim ** -0.5``.
    """

    def __init__(self, num_entities: int, dim: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(num_entities, dim, generator=generator) * dim**-0.5)

    def forward(self) -> Tensor:
        """Return the features, ``(E, d)``."""
        return self.weight


class _Network(nn.Module):
    """The map ``dim -> hidden -> ReLU -> hidden -> ReLU -> dim``, entered at its first linear layer or just after it."""

    def __init__(self, dim: int, hidden: int, dropout: float, generator: torch.Generator) -> None:
        super().__init__()
        self.dropout = dropout
        self.first, self.second, self.last = nn.Linear(dim, hidden), nn.Linear(hidden, hidden), nn.Linear(hidden, dim)
        with torch.no_grad():
            for layer in (self.first, self.second, self.last):
                layer.weight.normal_(0.0, (2.0 / layer.in_features) ** 0.5, generator=generator)
                layer.bias.zero_()

    def after_first(self, value: Tensor) -> Tensor:
        hidden = self._drop(torch.relu(self.second(self._drop(torch.relu(value)))))
        return self.last(hidden)  # type: ignore[no-any-return]

    def _drop(self, value: Tensor) -> Tensor:
        return torch.dropout(value, self.dropout, self.training) if self.dropout else value

    def forward(self, value: Tensor) -> Tensor:
        return self.after_first(self.first(value))


class FactDistribution(nn.Module):
    r"""The distribution of the facts of each relation, ``P(h, t | r) = P(h | r) P(t | h, r)``.

    .. math:: P(h|r) = \mathrm{softmax}_h\big(x_r \cdot f_h\big), \qquad
              P(t|h,r) = \mathrm{softmax}_t\big(x_{r,h} \cdot f_t\big)

    with natural parameters ``x_r = MLP1(r)`` and ``x_{r,h} = MLP2(r + f_h)`` and one table of entity features ``f``
    shared by both. Each conditional is an exponential family with sufficient statistic ``f``, which is what makes the
    divergences of :mod:`relsim.divergence` exact.

    Parameters
    ----------
    num_entities, num_relations
        Numbers of entities E and relations R, at least 2 and 1.
    dim
        Width d of features, relation vectors and natural parameters; taken from ``entity`` where that is given.
    hidden
        Width of the two hidden layers of each MLP.
    entity
        A module whose ``forward()`` returns features ``(E, d)``; a free table by default. Lorentz points with the time
        coordinate negated make the logits Lorentzian inner products.
    natural
        A map applied to the output of both MLPs, ``(..., d) -> (..., d)``, such as a lift to the hyperboloid; the
        identity by default.
    dropout
        Share of the hidden units of both MLPs left out in training mode, 0 <= dropout < 1.
    seed
        Seed of the initial weights: equal arguments give equal models.

    Raises
    ------
    ValueError
        For sizes that are too small, or an ``entity`` module of another shape.

    References
    ----------
    Chen et al., Quantifying Similarity between Relations with Fact Distribution, ACL 2019, equations 1 to 4.

    Examples
    --------
    >>> model = FactDistribution(5, 2, dim=4, hidden=8)
    >>> model.log_prob_tail(torch.tensor([0, 3]), torch.tensor([1, 0])).exp().sum(1).allclose(torch.ones(2))
    True
    """

    def __init__(
        self,
        num_entities: int,
        num_relations: int,
        *,
        dim: int = 100,
        hidden: int = 256,
        entity: nn.Module | None = None,
        natural: nn.Module | None = None,
        dropout: float = 0.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("num_entities", num_entities, 2),
            ("num_relations", num_relations, 1),
            ("dim", dim, 1),
            ("hidden", hidden, 1),
        ):
            if value < least:
                raise ValueError(f"{name} is {value}, expected at least {least}")
        if not 0.0 <= dropout < 1.0:
            raise ValueError(f"dropout is {dropout}, expected 0 <= dropout < 1")
        generator = torch.Generator().manual_seed(seed)
        self.entity = EntityTable(num_entities, dim, generator=generator) if entity is None else entity
        shape = tuple(self.features().shape)
        if len(shape) != 2 or shape[0] != num_entities:
            raise ValueError(
                f"entity() returns shape {shape}, expected ({num_entities}, dim) for {num_entities} entities"
            )
        dim = shape[1]
        self.num_entities, self.num_relations, self.dim = num_entities, num_relations, dim
        # Three times the length of an entity vector: longer ones drown the head in r + f_h, shorter ones learn slowly.
        self.relation = nn.Parameter(torch.randn(num_relations, dim, generator=generator) * 3.0 * dim**-0.5)
        self.head_network = _Network(dim, hidden, dropout, generator)
        self.tail_network = _Network(dim, hidden, dropout, generator)
        self.natural = nn.Identity() if natural is None else natural

    @property
    def device(self) -> torch.device:
        """Where the parameters lie, and ids are expected."""
        return self.relation.device

    def features(self) -> Tensor:
        """Return the entity features f, ``(E, d)``."""
        return self.entity()  # type: ignore[no-any-return]

    def head_natural(self, r: Tensor) -> Tensor:
        """Natural parameters of P(h | r): ``r (B,) -> (B, d)``."""
        return self.natural(self.head_network(self.relation[self._relations(r)]))  # type: ignore[no-any-return]

    def tail_natural(self, h: Tensor, r: Tensor) -> Tensor:
        """Natural parameters of P(t | h, r): ``h (B,), r (B,) -> (B, d)``."""
        value = self.relation[self._relations(r)] + self.features()[self._entities("h", h)]
        return self.natural(self.tail_network(value))  # type: ignore[no-any-return]

    def tail_natural_all(self, h: Tensor) -> Tensor:
        """Natural parameters of P(t | h, r) for every relation: ``h (B,) -> (B, R, d)``.

        The first layer is linear in ``r + f_h``, so it is applied to the R relations and B heads apart.
        """
        network = self.tail_network
        head = network.first(self.features()[self._entities("h", h)])
        relation = self.relation @ network.first.weight.T
        return self.natural(network.after_first(head[:, None] + relation))  # type: ignore[no-any-return]

    def log_prob_head(self, r: Tensor) -> Tensor:
        """``log P(h | r)`` of every head: ``r (B,) -> (B, E)``, in nats."""
        return torch.log_softmax(self.head_natural(r) @ self.features().T, 1)

    def log_prob_tail(self, h: Tensor, r: Tensor) -> Tensor:
        """``log P(t | h, r)`` of every tail: ``h (B,), r (B,) -> (B, E)``, in nats."""
        return torch.log_softmax(self.tail_natural(h, r) @ self.features().T, 1)

    def log_prob(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """``log P(h, t | r)``: ``h, r, t (B,) -> (B,)``, in nats."""
        head = self.log_prob_head(r).gather(1, self._entities("h", h)[:, None])
        return (head + self.log_prob_tail(h, r).gather(1, self._entities("t", t)[:, None])).squeeze(1)

    @torch.no_grad()
    def sample(self, r: Tensor, n: int, *, generator: torch.Generator | None = None) -> tuple[Tensor, Tensor]:
        """Draw n facts of each relation: ``r (B,) -> heads (B, n), tails (B, n)``, independent given r."""
        if n < 1:
            raise ValueError(f"n is {n}, expected at least 1 sample a relation")
        heads = torch.multinomial(self.log_prob_head(r).exp(), n, replacement=True, generator=generator)
        tails = [
            torch.multinomial(self.log_prob_tail(h, rel.expand(n)).exp(), 1, generator=generator).squeeze(1)
            for h, rel in zip(heads, r, strict=True)
        ]
        return heads, torch.stack(tails)

    def nll(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Summed head and tail terms of the negative log-likelihood, each a scalar in nats times count.

        Facts of one (head, relation) share a softmax row, and so do all facts of a relation in the head term.

        Parameters
        ----------
        batch
            ``head, relation, tail``: int64 ``(N,)``; ``count``: ``(N,)``; optionally ``negatives`` int64 ``(K,)``,
            distinct, with ``correction (K,)``, for sampled normalisers (see :func:`relsim.model.softmax.softmax_nll`).
            Without negatives the normalisers are exact and cost (rows of the batch) x E.
        """
        missing = [key for key in ("head", "relation", "tail", "count") if key not in batch]
        if missing:
            raise KeyError(f"the batch lacks {missing}; it has {sorted(batch)}")
        head, relation = self._entities("head", batch["head"]), self._relations(batch["relation"])
        tail, features = self._entities("tail", batch["tail"]), self.features()
        weight = batch["count"].to(features.dtype)
        if not len(head) == len(relation) == len(tail) == len(weight) or len(head) == 0:
            lengths = {key: len(batch[key]) for key in ("head", "relation", "tail", "count")}
            raise ValueError(f"the batch has lengths {lengths}, expected equal lengths above 0")
        sampled = {key: batch[key] for key in ("negatives", "correction") if key in batch}
        size = self.num_entities
        if "negatives" in sampled:
            # One gather of the rows in use, so that backward fills one gradient of the whole table and not five.
            ids = torch.cat([self._entities("negatives", sampled["negatives"]), head, tail])
            used, place = torch.unique(ids, return_inverse=True)
            features, size = features[used], len(used)
            sampled["negatives"], head, tail = torch.split(place, [len(sampled["negatives"]), len(head), len(tail)])
        # (relation, head) keys are distinct rows of the tail term and distinct observations of the head term.
        key, group = torch.unique(relation * size + head, return_inverse=True)
        group_relation, group_head = key // size, key % size
        group_weight = weight.new_zeros(len(key)).index_add_(0, group, weight)
        present, row = torch.unique(group_relation, return_inverse=True)
        head_term = softmax_nll(self.head_natural(present), row, group_head, group_weight, features, **sampled)
        fact, which = torch.unique(group * size + tail, return_inverse=True)
        fact_weight = weight.new_zeros(len(fact)).index_add_(0, which, weight)
        row, target = fact // size, fact % size
        natural = self.natural(self.tail_network(self.relation[group_relation] + features[group_head]))
        return head_term, softmax_nll(natural, row, target, fact_weight, features, **sampled)

    def loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Mean ``-log P(h, t | r)`` a fact, a scalar in nats.

        Parameters
        ----------
        batch
            As in :meth:`nll`. An optional scalar ``total`` divides the sum in place of the batch's own sum of counts,
            which keeps gradients unbiased when batches hold different numbers of facts.
        """
        head, tail = self.nll(batch)
        return (head + tail) / batch.get("total", batch["count"].sum())

    def _entities(self, name: str, ids: Tensor) -> Tensor:
        return _checked(name, ids, self.num_entities, "entities")

    def _relations(self, ids: Tensor) -> Tensor:
        return _checked("relation", ids, self.num_relations, "relations")


def on_cpu(dist: FactDistribution) -> FactDistribution:
    """The model itself, or a copy on the CPU of one that lies elsewhere."""
    return dist if dist.device.type == "cpu" else deepcopy(dist).cpu()


def _checked(name: str, ids: Tensor, size: int, what: str) -> Tensor:
    # A negative id would silently index from the end.
    if ids.dtype != torch.int64 or ids.dim() != 1:
        raise TypeError(f"{name} is {ids.dtype} of shape {tuple(ids.shape)}, expected int64 of shape (B,)")
    if len(ids) and (int(ids.min()) < 0 or int(ids.max()) >= size):
        raise IndexError(f"{name} ids run from {int(ids.min())} to {int(ids.max())}, expected 0 to {size - 1} ({what})")
    return ids
