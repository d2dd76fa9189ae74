"""Command-line words as users write them, made regular before a parser sees them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from .errors import UsageError

__all__ = ["collect", "name_sections", "parse_seeds", "regular", "rename", "switches"]


def regular(argv: Sequence[str]) -> list[str]:
    """Write option names with underscores, so that ``--eval-every`` and ``--eval_every`` are one; values stay."""
    words = []
    for word in argv:
        if word.startswith("--") and len(word) > 2:
            name, equals, value = word[2:].partition("=")
            word = f"--{name.replace('-', '_')}{equals}{value}"
        words.append(word)
    return words


def name_sections(args: Iterable[str], sections: Mapping[str, str]) -> list[str]:
    """Turn ``--model X``, where model is a section, into its first field: ``--model.scorer X``."""
    words = []
    for word in args:
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        words.append(f"--{name}.{sections[name]}{equals}{value}" if name in sections else word)
    return words


def rename(args: Iterable[str], aliases: Mapping[str, str]) -> list[str]:
    """Turn ``--OTHER X`` into ``--NAME X`` for the other names that options have."""
    words = []
    for word in args:
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        words.append(f"--{aliases[name]}{equals}{value}" if name in aliases else word)
    return words


def switches(args: Iterable[str], names: Iterable[str]) -> list[str]:
    """Turn ``--NAME`` without a value, where that is true or false, into ``--NAME true``."""
    words, known = list(args), {f"--{name}" for name in names}
    made = []
    for place, word in enumerate(words):
        alone = word in known and (place + 1 == len(words) or words[place + 1].startswith("--"))
        made.append(f"{word}=true" if alone else word)
    return made


def collect(args: Iterable[str], section: str, known: Iterable[str]) -> tuple[list[str], dict[str, str]]:
    """Take options ``--SECTION.NAME X`` with a name that is not a known one out of the words: what is left, and X by NAME.

    Raises
    ------
    UsageError : such an option without a value.
    """
    words, rest, taken = list(args), [], {}
    kept = set(known)
    while words:
        word = words.pop(0)
        name, equals, value = word[2:].partition("=") if word.startswith("--") else ("", "", "")
        owner, dot, option = name.partition(".")
        if not dot or owner != section or option in kept:
            rest.append(word)
            continue
        if not equals:
            if not words or words[0].startswith("--"):
                raise UsageError(f"--{name} has no value; write --{name} VALUE")
            value = words.pop(0)
        taken[option] = value
    return rest, taken


def parse_seeds(text: str) -> list[int]:
    """Seeds of ``0,1,2`` or ``0-4``."""
    seeds: list[int] = []
    try:
        for part in text.split(","):
            first, dash, last = part.strip().partition("-")
            if dash and int(first) > int(last):
                raise UsageError(f"--seeds: a range ascends, write {int(last)}-{int(first)} for {part.strip()}")
            seeds += range(int(first), int(last) + 1) if dash else [int(first)]
    except ValueError:
        raise UsageError(f"--seeds takes numbers such as 0,1,2 or 0-4; got {text!r}") from None
    if not seeds or len(set(seeds)) != len(seeds):
        raise UsageError(f"--seeds takes different numbers, got {text!r}")
    return seeds
