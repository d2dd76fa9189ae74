"""The official score of SemEval-2010 Task 8: macro F1 of the relations without Other, directions counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

__all__ = ["NEGATIVE", "official_macro_f1"]

NEGATIVE = ("Other", "no_relation")  # the class that says that no relation holds, in either data set


def _relation(label: str) -> str:
    return label.partition("(")[0]


def official_macro_f1(key: Mapping[str, str], proposed: Mapping[str, str]) -> float:
    """Macro F1 over the relations of the key, a relation with the wrong direction counted as wrong, 0 to 1.

    ``P = correct / (proposed as the relation)``, ``R = correct / (relation in the key)``. Sentences without an answer count
    as answered with no relation.

    Parameters
    ----------
    key, proposed : class by sentence, ``Relation(e1,e2)``, ``Relation(e2,e1)``, or one of :data:`NEGATIVE`

    Raises
    ------
    ValueError : an answer to a sentence that the key has not, or a key without any relation.

    References
    ----------
    Hendrickx et al., "SemEval-2010 Task 8", 2010; scorer v1.2.
    """
    if strange := proposed.keys() - key.keys():
        raise ValueError(f"{len(strange)} answers to sentences that the key has not, such as {min(strange)!r}")
    actual = Counter(_relation(label) for label in key.values())
    answered = Counter(_relation(label) for label in proposed.values())
    correct = Counter(_relation(label) for name, label in proposed.items() if label == key[name])
    relations = sorted(actual.keys() - set(NEGATIVE))
    if not relations:
        raise ValueError("the key holds no relation; there is nothing to score")
    # F1 = 2 P R / (P + R) = 2 correct / (answered + actual), also where P or R has no denominator
    return sum(2 * correct[name] / (answered[name] + actual[name]) for name in relations) / len(relations)
