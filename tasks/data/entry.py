"""What the table of data sets says of one of them."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["DataSet"]


@dataclass(frozen=True)
class DataSet:
    """One data set.

    Attributes
    ----------
    folder : path below the data folder
    files : file name to the SHA-256 of its content, decompressed, text with LF line ends; ``NAME.gz`` is read as well
    kind : which loader reads it
    origin, licence : where it comes from and on what terms, for a message where it is missing
    extra : further files, read where they are there: name to SHA-256, or None where none is known
    """

    kind: str
    folder: str
    files: dict[str, str]
    origin: str
    licence: str
    extra: dict[str, str | None] = field(default_factory=dict)
