"""What the words of a relation phrase say: tokens, light stemming, overlap weighted by rarity."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from relsim.phrases.normalise import denials, progressive, split_words
from relsim.phrases.verbs import PREPOSITIONS

__all__ = ["content", "negated", "stem", "token_matrix", "tokens", "voice"]

_NEGATION = frozenset(("not", "never", "no", "neither", "nor", "without", "hardly"))
_WORD = re.compile(r"[^\W_]+(?:'t\b)?|'s", re.UNICODE)
# Forms that carry tense and voice, not meaning. Negation is never stripped: "be not" must not meet "be".
_AUXILIARY = frozenset(
    _WORD.findall(
        "be am is are was were been being have has had having do does did done will would shall should can could may "
        "might must get gets got a an the 's"
    )
)
_PASSIVE = frozenset(("be", "am", "is", "are", "was", "were", "been", "being", "get", "gets", "got"))
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_JOINT = re.compile(r"[_/]")


def stem(word: str) -> str:
    """Strip an English inflection: the same stem for decide, decides, decided, deciding.

    Plural and tense endings only; irregular forms stay as they are (won is not win).
    """
    if len(word) > 4 and word.endswith(("ies", "ied")):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes", "zes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith(("ss", "us", "is")):
        word = word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) > 2 and any(vowel in root for vowel in "aeiouy"):
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "lsz":
                root = root[:-1]
            return root.removesuffix("e")
    return word.removesuffix("e") if len(word) > 3 else word


_LINKS = frozenset(map(stem, PREPOSITIONS))


def tokens(phrase: str) -> list[str]:
    """Lower-case stems of a phrase without auxiliaries and articles; all of its words if nothing else is left.

    Paths and identifiers fall apart at punctuation, underscores and inner capitals, so ``/film/film/directed_by`` gives
    film, film, direct, by.
    """
    words = [word.lower() for word in _WORD.findall(_CAMEL.sub(" ", phrase).replace("’", "'"))]
    kept = [stem(word) for word in words if word not in _AUXILIARY]
    return kept or words


def negated(phrase: str) -> bool:
    """Whether a phrase holds an odd number of English negations, as in "is not" or "has never been".

    What denies, and what does not ("not only", "no 1"), is said by :func:`relsim.phrases.normalise.denials`.
    """
    return len(denials(split_words(_JOINT.sub(" ", phrase)), _NEGATION)) % 2 == 1


def voice(phrase: str) -> tuple[tuple[str, ...], str]:
    """Stems of a phrase without a final "by", and its voice.

    "passive": a form of be or get, and "by" at the end; with an active of equal stems it says the same, the arguments
    exchanged. "no agent": a form of be or get and no preposition at the end, such as "was used", which may be a passive
    whose agent is not named, and then is no form of "used". "active": any other, "is walking by" too.

    Examples
    --------
    >>> voice("own"), voice("was owned by"), voice("was owned")
    ((('own',), 'active'), (('own',), 'passive'), (('own',), 'no agent'))
    """
    words = [word.lower() for word in _WORD.findall(phrase)]
    found = "active"
    if not _PASSIVE.isdisjoint(words) and not any(word != "being" and progressive(word) for word in words):
        if len(words) > 2 and words[-1] == "by":
            found = "passive"
        elif words[-1] not in PREPOSITIONS:
            found = "no agent"
    return tuple(sorted(tokens(" ".join(words[:-1] if found == "passive" else words)))), found


def content(phrase: str) -> frozenset[str]:
    """Stems of a phrase that are no prepositions: what two phrases can have in common that says something."""
    return frozenset(tokens(phrase)) - _LINKS


def token_matrix(phrases: Sequence[str]) -> Any:
    """Sparse ``(R, V)`` float64 with 1 where the phrase has the token, and the weight ``(V,)`` of each token.

    The weight is ``log(1 + R / df)``, df the phrases that have the token.
    """
    from scipy import sparse

    found = [sorted(set(tokens(phrase))) for phrase in phrases]
    df = Counter(token for words in found for token in words)
    column = {token: i for i, token in enumerate(sorted(df))}
    indptr = np.cumsum([0, *map(len, found)])
    indices = np.array([column[token] for words in found for token in words], dtype=np.int64)
    matrix = sparse.csr_matrix((np.ones(len(indices)), indices, indptr), shape=(len(phrases), len(column)))
    weight = np.array([np.log1p(len(phrases) / df[token]) for token in sorted(df)], dtype=np.float64)
    return matrix, weight
