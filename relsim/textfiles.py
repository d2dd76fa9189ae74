"""Files of lines, of any size: found, opened, decompressed and decoded in blocks, with every failure named."""

from __future__ import annotations

import difflib
import gzip
import os
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from relsim.ingest import IngestError

__all__ = ["SUFFIXES", "find_files", "text_blocks"]

SUFFIXES = (".tsv", ".csv", ".txt", ".json", ".jsonl", ".gz")
BLOCK = 4 << 20
LONGEST_LINE = 64 << 20
# Formats that start with these bytes are common mistakes; each gets the way out.
_MAGIC = {
    b"PAR1": "a Parquet file; load it with DuckDB, pandas or polars and call relsim.Facts.from_frame",
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"BZh": "bzip2-compressed; only gzip is read, decompress it first",
    b"\xfd7zXZ": "xz-compressed; only gzip is read, decompress it first",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; only gzip is read, decompress it first",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8 first",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8 first",
}

PathLike = str | os.PathLike[str]


def find_files(path: PathLike | Iterable[PathLike]) -> tuple[list[Path], list[tuple[str, str]]]:
    """List the files to read, and those of a folder that are skipped with the reason.

    Parameters
    ----------
    path
        A file, a folder (its own files, not those of sub-folders), or several of either.

    Raises
    ------
    IngestError
        For a path that does not exist (the nearest name beside it is suggested), or when nothing is left to read.
    """
    given = [path] if isinstance(path, str | os.PathLike) else list(path)
    files: list[Path] = []
    skipped: list[tuple[str, str]] = []
    for item in map(Path, given):
        if item.is_dir():
            for child in sorted(item.iterdir()):
                if child.is_dir():
                    skipped.append((str(child), "a folder in a folder"))
                elif child.name.startswith(".") or child.suffix.lower() not in SUFFIXES:
                    skipped.append((str(child), f"not one of {' '.join(SUFFIXES)}; name the file to read it"))
                else:
                    files.append(child)
        elif item.exists():
            files.append(item)
        else:
            beside = [p.name for p in item.parent.iterdir()] if item.parent.is_dir() else []
            near = difflib.get_close_matches(item.name, beside, n=1)
            raise IngestError(f"{item}: no such file or folder" + (f"; did you mean {near[0]}?" if near else ""))
    if not files:
        raise IngestError(f"no file to read in {', '.join(map(str, given)) or 'an empty list of paths'}")
    if len({file.resolve() for file in files}) < len(files):
        raise IngestError("a file is given twice; its extractions would count double")
    return files, skipped


def text_blocks(path: Path) -> Iterator[tuple[str, int]]:
    """Yield (text, lines read as Latin-1): blocks of whole lines joined by LF, without the last LF.

    gzip is recognised by content, a byte-order mark is removed, CR before LF is left for the parser to strip. A line
    that is not valid UTF-8 is decoded as Latin-1, which maps every byte to a character.

    Raises
    ------
    IngestError
        For an empty, binary, truncated, corrupt or unreadable file, or a line beyond 64 MiB.
    """
    seen = 0
    try:
        with path.open("rb") as raw:
            start = raw.read(8)
            raw.seek(0)
            gzipped = start.startswith(b"\x1f\x8b")
            with gzip.open(raw) if gzipped else raw as stream:
                for block in _line_blocks(stream.read, path):
                    yield _decode(block)
                    seen += block.count(b"\n") + 1
    except EOFError:
        raise IngestError(f"{path}: the gzip file is cut short after line {seen}; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise IngestError(f"{path}: the gzip file is damaged after line {seen} ({error}); fetch it again") from None
    except OSError as error:
        raise IngestError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not seen:
        raise IngestError(f"{path}: the file is empty")


def _line_blocks(read: Callable[[int], bytes], path: Path) -> Iterator[bytes]:
    first = True
    carry = b""
    while data := read(BLOCK):
        if first:
            first = False
            for magic, what in _MAGIC.items():
                if data.startswith(magic):
                    raise IngestError(f"{path}: {what}")
            if (at := data.find(b"\0")) >= 0:
                raise IngestError(f"{path}: binary data (a NUL byte at offset {at}), expected text")
            data = data.removeprefix(b"\xef\xbb\xbf")
        data = carry + data
        cut = data.rfind(b"\n")
        if cut >= 0:
            yield data[:cut]
        carry = data[cut + 1 :]
        if len(carry) > LONGEST_LINE:
            raise IngestError(f"{path}: a line is longer than {LONGEST_LINE >> 20} MiB, expected one extraction a line")
    if carry:
        yield carry


def _decode(block: bytes) -> tuple[str, int]:
    try:
        return block.decode("utf-8"), 0
    except UnicodeDecodeError:
        pass
    out, odd = [], 0
    for line in block.split(b"\n"):
        try:
            out.append(line.decode("utf-8"))
        except UnicodeDecodeError:
            out.append(line.decode("latin-1"))
            odd += 1
    return "\n".join(out), odd
