"""Which relation phrases, and which arguments, are forms of one another: keys by a small set of stated rules."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Sequence

from relsim.phrases.verbs import (
    ADVERBS_OF_DEGREE,
    BE,
    DETERMINERS,
    DO,
    HAVE,
    IRREGULAR,
    NOT_PROGRESSIVE,
    PREPOSITIONS,
    word_set,
)

__all__ = ["RULES", "argument_key", "denials", "progressive", "relation_key", "split_words"]

RULES = (
    "phrases by Unicode NFKC, case, determiners and tense (perfect, progressive, future; do in negations), with passive "
    "voice, modals and negation kept; arguments by Unicode NFKC and leading determiners, capitalised apart from not"
)

_QUOTES = str.maketrans("\u2018\u2019\u02bc\u201c\u201d\u2013\u2014", "'''\"\"--")
_EDGE = "\"'`,;:()[]{}"
_CONTRACTION = re.compile(r"(?<=\w)(?=n't\b)|(?<=\w)(?='(?:ve|ll|re|m|d|s)\b)")
_WHOLE = {"ca": "can", "wo": "will", "sha": "will", "shall": "will", "'ll": "will", "cannot": "can not", "n't": "not"}
# Contractions that lost their apostrophe.
_WHOLE |= {
    f"{verb}nt": f"{_WHOLE.get(verb, verb)} not"
    for verb in word_set("are ca could did do does had has have is should was were wo would")
}
_BASE_IN_EED = word_set("exceed proceed succeed need feed seed speed heed breed bleed weed")
_SHORT = re.compile(r"[^aeiou]*[aeiouy][^aeiouywx]")
_VOWEL = re.compile(r"[aeiouy]+")
_CLITICS = frozenset(("'s", "'re", "'m", "'ve", "'d"))
_PARTICIPLE = frozenset(form for form, base in IRREGULAR.items() if form != base) | word_set(
    "become beaten bet cast come cost cut hit hurt let overcome put quit read run set shed shut split spread"
)


def relation_key(phrase: str, *, lemmatised: bool = False) -> str:
    """Form that all inflections of a relation phrase share: two phrases with one key are read as the same relation.

    Negation is part of the key (a leading "not"), and so is voice: "owned", "has owned" and "is owning" have one key,
    "is owned by" another, "did not own" a third.

    Parameters
    ----------
    phrase
        A relation phrase in English; words of other languages pass through the same rules of spelling.
    lemmatised
        The phrase holds lemmas already, so "found" is not a form of "find": verbs are left as they are.
    """
    words = split_words(phrase)
    places = denials(words)
    negative = len(places) % 2 == 1
    words = [word for place, word in enumerate(words) if place not in places]
    if not lemmatised:
        words = _tense(words, negative)
    words = [word for word in words if word not in DETERMINERS] or words
    return " ".join(["not", *words] if negative else words) or " ".join(_plain(phrase).split())


def _plain(phrase: str) -> str:
    return unicodedata.normalize("NFKC", phrase).translate(_QUOTES).lower()


def split_words(phrase: str) -> list[str]:
    """Lower-case words of a phrase, contractions taken apart ("can't" and "cant" are can, not), outer punctuation off."""
    parts = [
        part
        for word in _CONTRACTION.sub(" ", _plain(phrase)).split()
        for part in _WHOLE.get(word, word if word in _CLITICS else word.strip(_EDGE)).split()
    ]
    return [word for word in parts if any(map(str.isalnum, word))]


def denials(words: Sequence[str], denying: Collection[str] = ("not",)) -> list[int]:
    """Places of the words that deny; an odd number of them negates a phrase. "not only" asserts, "no 1" is a number."""
    return [
        place
        for place, word in enumerate(words)
        if word in denying
        and (after := "".join(words[place + 1 : place + 2])) not in ADVERBS_OF_DEGREE
        and not (word == "no" and after[:1].isdigit())
    ]


def _tense(words: list[str], negative: bool) -> list[str]:
    """Take perfect, progressive and future auxiliaries away, and inflection off the verb they stand before."""
    out: list[str] = []
    place = 0
    while place + 1 < len(words):
        word, following = words[place], words[place + 1]
        if word == "will" or (word in HAVE and _participle(following)) or (word in DO and negative):
            place += 1
        elif word in BE and progressive(following):
            place += 1
            if following == "being":
                out.append("be")
                place += 1
        else:
            break
    rest = words[place:]
    if not rest:
        return out
    if rest[0] in BE:
        if out != ["be"]:
            out.append("be")
        rest = [_after_be(rest[1]), *map(_singular, rest[2:])] if len(rest) > 1 else []
    elif len(rest) > 1 and rest[1] == "by" and not out and _participle(rest[0]):
        out.append("be")
        rest[0] = verb_base(rest[0])
    elif rest[0] not in PREPOSITIONS and rest[0] not in DETERMINERS:
        rest[0] = verb_base(rest[0])
    return out + rest


def _participle(word: str) -> bool:
    return word in _PARTICIPLE or word in BE or (len(word) > 3 and word.endswith("ed") and word not in _BASE_IN_EED)


def progressive(word: str) -> bool:
    """Whether a word is a verb in -ing, and not an adjective or preposition of that ending (following, including)."""
    return word.endswith("ing") and word not in NOT_PROGRESSIVE and verb_base(word) != word


def _after_be(word: str) -> str:
    return verb_base(word) if _participle(word) else _singular(word)


def _singular(word: str) -> str:
    """Noun without the plural ending; short words, names of years and words in -ss, -us, -is stay."""
    if len(word) > 4 and word.endswith("ies") and word not in ("series", "species"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("sses", "shes", "ches", "xes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and word.isalpha() and not word.endswith(("ss", "us", "is", "news")):
        return word[:-1]
    return word


def verb_base(word: str) -> str:
    """One form for all inflections of a verb: ``hope`` for hopes, hoped, hoping; ``hop`` for hopped.

    A final e is dropped unless what is left is one short syllable, so the form of "located" is ``locat``.
    """
    if word in BE:
        return "be"
    if word in IRREGULAR:
        return _canonical(IRREGULAR[word])
    if word.endswith("ied"):
        return _canonical(word[:-1]) if len(word) == 4 else word[:-3] + "y"
    if word.endswith("eed"):
        return word if word in _BASE_IN_EED else word[:-1]
    for ending in ("ing", "ed"):
        root = word.removesuffix(ending)
        if root != word and len(root) > 1 and _VOWEL.search(root):
            if len(root) > 3 and root[-1] == root[-2] and root[-1] not in "elszf":
                return root[:-1]
            return root + "e" if _SHORT.fullmatch(root) else _single_l(root)
    return _canonical(_singular(word))


def _canonical(base: str) -> str:
    """Base form as its inflected forms come out: a final e only after one short syllable, a single final l."""
    if not base.endswith("e") or base.endswith("ee"):
        return _single_l(base)
    return base if _SHORT.fullmatch(base[:-1]) else base[:-1]


def _single_l(root: str) -> str:
    """British and American doubling made one: controll, fulfill, travell; call and fill stay."""
    return root[:-1] if root.endswith("ll") and len(_VOWEL.findall(root)) > 1 else root


def argument_key(name: str) -> str:
    """Form that the spellings of one argument share: NFKC, no leading determiner, no enclosing quotes, two cases.

    A name with a capital anywhere is not the common noun of the same letters (The Plague, plague; US, us), but all its
    spellings with capitals are one (The Beatles, Beatles, BEATLES). An A before a number stays (A 14).
    """
    words = unicodedata.normalize("NFKC", name).translate(_QUOTES).split()
    if len(words) > 1 and words[0].lower() in DETERMINERS and not (words[0] == "A" and words[1][0].isdigit()):
        words = words[1:]
    text = " ".join(words)
    text = text.strip(" \"'`,;:") or text
    return text.lower() if text == text.lower() else text.upper()
