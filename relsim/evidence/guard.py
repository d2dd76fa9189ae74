"""Which evidence decides a pair: the regime guard, and the probability of each regime."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from relsim.baselines import count_kl_max
from relsim.evidence.calibration import load_calibration
from relsim.evidence.contradiction import VERDICTS, Contradiction, contradiction
from relsim.evidence.counts import Counts, Float
from relsim.evidence.encoding import Encoded
from relsim.evidence.features import Pairs, fact_features, text_features
from relsim.evidence.neural import Neural
from relsim.evidence.profiles import Profiles
from relsim.phrases.text import content, negated, voice

__all__ = [
    "CONTRADICTED", "FACTS", "NEURAL", "POLARITY", "SWAPPED", "TEXT", "VOICE", "Guard", "Judged", "text_regime",
]  # fmt: skip

TEXT, FACTS, NEURAL = "phrases and arguments", "shared facts", "neural KL"
POLARITY, VOICE, CONTRADICTED, SWAPPED = "polarity", "voice", "contradiction", ", arguments swapped"
# With fewer facts, or fewer expected common ones, sharing none says nothing and the words decide.
_FEW, _LEAST_EXPECTED = 15, 3.0
# What words say rests on how phrases differ from all others; of fewer phrases the facts alone decide.
_PHRASES = 3
# What is left of a probability after a veto: 0 of 487 pairs of samples of one relation were vetoed, so less than 1 in 100.
_VETOED = 0.01
# Words alone do not merge a pair that should have common facts by now and has none, or less than half of them.
_DOUBTED, _ONE_FACT, _HALF = 0.49, 1.0, 2.0
# Words and kinds of arguments are alike for siblings and antonyms too (father, mother): with fewer common facts than two
# they do not make sure of a synonym, nor at all of an inverse, since they do not say which argument comes first.
_UNCONFIRMED, _CONFIRMED = 0.9, 2
# Grammar says that "is owned by" turns "own" round; what is left is for misread phrases.
_TURNED = 0.95


def text_regime(*, types: bool, encoder: bool) -> str:
    """Name of the calibration for pairs with few facts, by the evidence there is."""
    return "text" + ("+types" if types else "") + ("+encoder" if encoder else "")


@dataclass(frozen=True)
class Judged:
    """Pairs compared one way round, ``(P,)`` each.

    Parameters
    ----------
    p, decided_by
        Probability, and what decided.
    found
        Contradiction evidence.
    held
        Whether words gave a higher probability, which was held down because common facts are missing.
    """

    p: Float
    decided_by: NDArray[Any]
    found: Contradiction
    held: NDArray[np.bool_]

    @property
    def vetoed(self) -> NDArray[np.bool_]:
        """Whether the facts contradict that both mean the same."""
        return np.asarray(self.found.verdict == VERDICTS[0])


class Guard:
    """Decides pairs by the best evidence there is for them.

    Both phrases have ``min_facts`` facts and there is a neural similarity: neural KL. Otherwise at least 15 facts, and
    three common facts to be expected of two samples of one relation: shared facts and count KL. Otherwise the words,
    the arguments' words and types, and the encoder, which merge no pair that should have common facts and has none or few,
    nor phrases without a fact and without a word in common unless an encoder speaks for them, and call none an inverse
    without two common facts the other way round. They are not asked where there are two phrases alone, since they say
    how these differ from all others; shared facts then decide, and of fewer than 15 one, or less than half, makes sure of
    nothing. Then contradiction, voice (own, is owned by) and polarity overrule.

    Parameters
    ----------
    counts
        The counts.
    profiles, encoded
        Argument profiles (with types or without) and, where there is an encoder, encoded phrases.
    neural
        Neural divergences; used straight only.
    min_facts
        Facts from which a pair counts as rich.
    off
        Contradiction evidence is off: relations were made disjoint.
    """

    def __init__(
        self,
        counts: Counts,
        profiles: Profiles,
        encoded: Encoded | None,
        neural: Neural | None,
        *,
        min_facts: int,
        off: bool,
    ) -> None:
        self.counts, self.profiles, self.encoded, self.neural = counts, profiles, encoded, neural
        self.min_facts, self.off = min_facts, off
        self.used: set[str] = set()
        phrases = counts.facts.relations
        self._denied = np.array([negated(phrase) for phrase in phrases], dtype=np.bool_)
        voices = [voice(phrase) for phrase in phrases]
        stems = {key: number for number, key in enumerate(dict.fromkeys(key for key, _ in voices))}
        self._stems = np.array([stems[key] for key, _ in voices], dtype=np.int64)
        self._passive = np.array([word == "passive" for _, word in voices], dtype=np.bool_)
        self._no_agent = np.array([word == "no agent" for _, word in voices], dtype=np.bool_)
        self._content = [content(phrase) for phrase in phrases]

    def judge(self, at: Pairs, *, swapped: bool = False) -> Judged:
        """Decide pairs ``(i, j)``, each ``(P,)``; with ``swapped`` head and tail of j are exchanged first."""
        i, j = at
        found = contradiction(self.counts, at, swapped=swapped, off=self.off)
        support = self.counts.facts.support.numpy()
        smaller = np.minimum(support[i], support[j])
        rich = smaller >= self.min_facts
        by_neural = np.zeros(len(i), dtype=np.bool_)
        if self.neural is not None and not swapped:
            by_neural = self.neural.decides(i, j)
        told = found.expected >= _LEAST_EXPECTED
        alone = len(support) < _PHRASES
        by_facts = ~by_neural & (rich | ((smaller >= _FEW) & (told | self.off)) | alone)
        p = np.zeros(len(i))
        words = np.full(len(i), TEXT + (SWAPPED if swapped else ""), dtype=object)
        text = text_regime(types=self.profiles.types is not None, encoder=self.encoded is not None and not swapped)
        facts = "parts" if self.off else None
        for regime, rows in (
            (text, np.flatnonzero(~by_neural & ~by_facts)),
            (facts or "facts", np.flatnonzero(by_facts & ~rich)),
            (facts or "many facts", np.flatnonzero(by_facts & rich)),
            ("neural", np.flatnonzero(by_neural)),
        ):
            if len(rows):
                self.used.add(regime)
                p[rows] = load_calibration(regime).probability(self._features(regime, at, rows, found, swapped))
        cap = self._cap(at, found, by_facts | by_neural, alone, swapped)
        if alone:  # the model of shared facts was fitted to more of them
            agreed = found.head.agreed
            unsure = ~by_neural & (smaller < _FEW) & ((agreed < _CONFIRMED) | (2 * agreed < smaller))
            cap[unsure] = np.minimum(cap[unsure], _UNCONFIRMED)
        held = ~by_neural & (p > cap)
        p[held] = cap[held]
        words[by_facts] = FACTS + (SWAPPED if swapped else "")
        words[by_neural] = NEURAL
        opposed = self._denied[i] != self._denied[j]
        judged = Judged(p, words, found, held)
        vetoed = judged.vetoed & ~opposed
        p[vetoed] = np.minimum(p[vetoed], _VETOED)
        words[vetoed] = CONTRADICTED + (SWAPPED if swapped else "")
        turned = (self._stems[i] == self._stems[j]) & (self._passive[i] != self._passive[j]) & ~vetoed
        p[turned] = np.maximum(p[turned], _TURNED) if swapped else 0.0
        words[turned] = VOICE + (SWAPPED if swapped else "")
        # What is denied is not what is claimed, however alike the arguments.
        p[opposed], words[opposed] = 0.0, POLARITY
        held &= ~(vetoed | turned | opposed)
        return judged

    def _cap(self, at: Pairs, found: Contradiction, told: NDArray[np.bool_], alone: bool, swapped: bool) -> Float:
        """Most that a pair without enough common facts reaches; 1 where facts decide (``told``) or there are enough."""
        i, j = at
        cap = np.ones(len(i))
        if self.off:
            return cap
        agreed = found.head.agreed
        same = (self._stems[i] == self._stems[j]) & (self._no_agent[i] != self._no_agent[j])
        few = found.expected >= _ONE_FACT + _HALF * agreed
        none = (agreed == 0) & (alone | same)
        unconfirmed = ~told & (agreed < _CONFIRMED)
        cap[unconfirmed] = _DOUBTED if swapped else _UNCONFIRMED
        if self.encoded is None:
            rows = np.flatnonzero(unconfirmed & (agreed == 0))
            apart = [self._content[a].isdisjoint(self._content[b]) for a, b in zip(i[rows], j[rows], strict=True)]
            none[rows[np.array(apart, dtype=np.bool_)]] = True
        cap[(~told & few) | none] = _DOUBTED
        return cap

    def _features(
        self, regime: str, at: Pairs, rows: NDArray[np.int64], found: Contradiction, swapped: bool
    ) -> dict[str, Float]:
        part = at[0][rows], at[1][rows]
        if regime == "neural":
            assert self.neural is not None
            a, b = self.neural.place[part[0]], self.neural.place[part[1]]
            return self.neural.features(a, b)
        if regime.startswith("text"):
            encoded = self.encoded
            return text_features(self.counts, part, self.profiles, encoded, swapped=swapped)
        return fact_features(self.counts, part, found.take(rows), swapped=swapped)

    def nearest(self, i: NDArray[np.int64], j: NDArray[np.int64]) -> Contradiction:
        """Evidence on each relation's nearest partner among the pairs given, by count KL."""
        size = self.counts.facts.num_relations
        kl = count_kl_max(self.counts, (i, j))
        both, other = np.concatenate([i, j]), np.concatenate([np.arange(len(i))] * 2)
        order = np.lexsort((kl[other], both))
        first = np.unique(both[order], return_index=True)[1]
        rows = np.unique(other[order][first])
        return contradiction(self.counts, (i[rows], j[rows])) if size > 1 else contradiction(self.counts, (i, j))
