"""Files of lines, of any size: found, opened, decompressed and decoded in blocks, with every failure named."""

from __future__ import annotations

import difflib
import gzip
import os
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from relsim.ingest.report import IngestError

__all__ = ["BINARY", "SUFFIXES", "PathLike", "find_files", "numbered_lines", "peek", "text_blocks", "text_chunks"]

SUFFIXES = (".tsv", ".csv", ".txt", ".json", ".jsonl", ".gz", ".oie", ".nt", ".nq", ".avro", ".parquet")
# Tables that other files of a folder refer to, and gold beside them; not extractions.
_BESIDE = re.compile(r"(entity2id|relation2id|ent2id|rel2id|relation2vec|entity2vec|gold_npclust|(ent|rel)_side_info)")
BLOCK = 4 << 20
# Parquet and Avro: formats that are read, and are no text.
BINARY = (b"PAR1", b"Obj\x01")
LONGEST_LINE = 64 << 20
# Formats that start with these bytes are common mistakes; each gets the way out.
_MAGIC = {
    b"PK\x03\x04": "a zip archive; unpack it first",
    b"BZh": "bzip2-compressed; only gzip is read, decompress it first",
    b"\xfd7zXZ": "xz-compressed; only gzip is read, decompress it first",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; only gzip is read, decompress it first",
    b"\xff\xfe": "UTF-16 text; convert it to UTF-8 first",
    b"\xfe\xff": "UTF-16 text; convert it to UTF-8 first",
}

PathLike = str | os.PathLike[str]


def find_files(path: PathLike | Iterable[PathLike]) -> tuple[list[tuple[Path, bool]], list[tuple[str, str]]]:
    """List the files to read, each with whether it was named itself, and those of a folder to skip, with the reason.

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
    files: list[tuple[Path, bool]] = []
    skipped: list[tuple[str, str]] = []
    for item in map(Path, given):
        if item.is_dir():
            for child in sorted(item.iterdir()):
                if child.is_dir():
                    skipped.append((str(child), "a folder in a folder"))
                elif _BESIDE.match(child.name):
                    skipped.append((str(child), "names, vectors or gold beside the extractions"))
                elif child.name.startswith(".") or child.suffix.lower() not in SUFFIXES:
                    skipped.append((str(child), f"not one of {' '.join(SUFFIXES)}; name the file to read it"))
                else:
                    files.append((child, False))
        elif item.exists():
            files.append((item, True))
        else:
            beside = [p.name for p in item.parent.iterdir()] if item.parent.is_dir() else []
            near = difflib.get_close_matches(item.name, beside, n=1)
            raise IngestError(f"{item}: no such file or folder" + (f"; did you mean {near[0]}?" if near else ""))
    if not files:
        raise IngestError(f"no file to read in {', '.join(map(str, given)) or 'an empty list of paths'}")
    if len({file.resolve() for file, _ in files}) < len(files):
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
    with _opened(path, lambda: f"after line {seen}") as stream:
        for block in _line_blocks(stream.read, path):
            yield _decode(block)
            seen += block.count(b"\n") + 1
    if not seen:
        raise IngestError(f"{path}: the file is empty")


def numbered_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Number and text of every line that is not blank; raises as :func:`text_blocks` does."""
    number = 0
    for text, _ in text_blocks(path):
        for line in text.split("\n"):
            number += 1
            if line.strip():
                yield number, line.rstrip("\r")


def text_chunks(path: Path) -> Iterator[str]:
    """Text of a file in pieces of any length, for formats that are no lines; bytes that are not UTF-8 are refused."""
    carry = b""
    read = 0
    with _opened(path, lambda: f"after {read:,} characters") as stream:
        while data := stream.read(BLOCK):
            data = carry + (data if read else data.removeprefix(b"\xef\xbb\xbf"))
            try:
                text, carry = data.decode("utf-8"), b""
            except UnicodeDecodeError as error:
                if error.start < len(data) - 3:
                    raise IngestError(f"{path}: not UTF-8 after {read + error.start:,} characters") from None
                text, carry = data[: error.start].decode("utf-8"), data[error.start :]
            read += len(text)
            yield text
    if carry:
        raise IngestError(f"{path}: the text breaks off inside a character")


def peek(path: Path, size: int = 256 << 10) -> tuple[bytes, list[str]]:
    """First bytes of a file, decompressed, and the whole lines in them that are not blank.

    Raises
    ------
    IngestError
        For an empty or unreadable file, or one compressed in a way that is not read.
    """
    start = b""
    with _opened(path, lambda: "at its beginning") as stream:
        try:
            while len(start) < size and (data := stream.read(4096)):
                start += data
        except EOFError:
            # The reading proper says how far the file goes; what there is of it still tells the format.
            if not start:
                raise
    if not start:
        raise IngestError(f"{path}: the file is empty")
    if start.startswith(BINARY):
        return start, []
    _check_magic(start[:BLOCK], path)
    whole = start if len(start) < size else start[: start.rfind(b"\n") + 1] or start
    lines = _decode(whole.removeprefix(b"\xef\xbb\xbf"))[0].split("\n")
    return start, [text for line in lines if (text := line.rstrip("\r")).strip()]


@contextmanager
def _opened(path: Path, where: Callable[[], str]) -> Iterator[IO[bytes] | gzip.GzipFile]:
    """Open a file that may be gzip, and say in one line what is wrong with it."""
    try:
        with path.open("rb") as raw:
            gzipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            yield gzip.GzipFile(fileobj=raw) if gzipped else raw
    except EOFError:
        raise IngestError(f"{path}: the gzip file is cut short {where()}; fetch it again") from None
    except (gzip.BadGzipFile, zlib.error) as error:
        raise IngestError(f"{path}: the gzip file is damaged {where()} ({error}); fetch it again") from None
    except OSError as error:
        raise IngestError(f"{path}: cannot be read ({error.strerror or error})") from None


def _check_magic(data: bytes, path: Path) -> None:
    for magic, what in _MAGIC.items():
        if data.startswith(magic):
            raise IngestError(f"{path}: {what}")
    if (at := data.find(b"\0")) >= 0:
        raise IngestError(f"{path}: binary data (a NUL byte at offset {at}), expected text")


def _line_blocks(read: Callable[[int], bytes], path: Path) -> Iterator[bytes]:
    first = True
    carry = b""
    while data := read(BLOCK):
        if first:
            first = False
            _check_magic(data, path)
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
