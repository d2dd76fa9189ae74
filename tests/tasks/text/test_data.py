"""Readers of the sentence sets, their splits, and folders of the user's own."""

from __future__ import annotations

import gzip
import hashlib
from pathlib import Path

import pytest
import torch

from tasks.data.load import load
from tasks.data.sets import DATA
from tasks.data.text import SPLITS, Texts, bucket, own_texts
from tasks.data.text_formats import FORMATS
from tasks.errors import UsageError


def put(root: Path, name: str, contents: list[bytes]) -> Path:
    """Write the files of a data set, in order, below a data folder."""
    for file, content in zip(DATA[name].files, contents, strict=True):
        path = root / DATA[name].folder / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return root


def rows(data: Texts, split: str) -> list[tuple[str, ...]]:
    names = [data.labels[int(i)] for i in data.label[split]] if data.labels else [f"{x:g}" for x in data.label[split]]
    columns = [data.first[split], *([data.second[split]] if data.second else []), names]
    return list(zip(*columns, strict=True))


def held_in(words: list[str]) -> str:
    """A word that the hash leaves in the training split."""
    return next(word for word in words if int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 10 < 8)


def held_out(words: list[str]) -> str:
    """A word that the hash takes for validation."""
    return next(word for word in words if int(hashlib.sha256(word.encode()).hexdigest()[:8], 16) % 10 == 8)


NAMES = [f"word {i}" for i in range(100)]
KEPT, TAKEN = held_in(NAMES), held_out(NAMES)


@pytest.mark.parametrize(
    ("name", "contents", "train", "test"),
    [
        (
            "SST-2",
            [b"a good film\t1\na bad one\t0", b"x\t0", b"y\t1\n"],
            [("a good film", "positive"), ("a bad one", "negative")],
            [("y", "positive")],
        ),
        (
            "SST-5",
            ["4 a crème film\n".encode(), b"0 x\n", b"2 y z\n"],
            [("a crème film", "very positive")],
            [("y z", "neutral")],
        ),
        (
            "MRPC",
            [
                b'\xef\xbb\xbfQuality\t#1 ID\t#2 ID\t#1 String\t#2 String\r\n1\t7\t8\tHe said "so\tHe said\r\n',
                b"Q\ta\tb\tc\td\r\n0\t1\t2\tx\ty\r\n",
                b"\xef\xbb\xbfQ\ta\tb\tc\td\r\n0\t1\t2\tu\tv\r\n",
            ],
            [('He said "so', "He said", "paraphrase")],
            [("u", "v", "different")],
        ),
        (
            "STS-B",
            [b'g\tf\ty\t1\t3.8\tA plane.\tA "plane\n', b"g\tf\ty\t1\t0\ta\tb\tL1\tL2\n", b"g\tf\ty\t1\t5.000\tc\td\n"],
            [("A plane.", 'A "plane', "3.8")],
            [("c", "d", "5")],
        ),
        (
            "SICK-R",
            [
                b"h\th\th\th\th\n1\ta b\tc\t4.5\tNEUTRAL\n",
                b"h\th\th\th\th\n1\ta\tc\t1\tENTAILMENT\n",
                b"h\th\th\th\th\r\n1\tx\ty\t3.3\tCONTRADICTION\r\n",
            ],
            [("a b", "c", "4.5")],
            [("x", "y", "3.3")],
        ),
        (
            "SICK-E",
            [
                b"h\th\th\th\th\n1\ta b\tc\t4.5\tNEUTRAL\n",
                b"h\th\th\th\th\n1\ta\tc\t1\tENTAILMENT\n",
                b"h\th\th\th\th\r\n1\tx\ty\t3.3\tCONTRADICTION\r\n",
            ],
            [("a b", "c", "neutral")],
            [("x", "y", "contradiction")],
        ),
        (
            "CoLA",
            [f"gj04\t0\t*\t{KEPT}\ngj04\t1\t\t{TAKEN}\n".encode(), b"g\t1\t\tin\n", b"g\t0\t*\tout"],
            [(KEPT, "unacceptable")],
            [("in", "acceptable"), ("out", "unacceptable")],
        ),
        (
            "WNLI",
            [f"index\ta\tb\tl\n0\t{KEPT}\tp\t1\n1\t{TAKEN}\tq\t0\n".encode(), b"index\ta\tb\tl\n0\tu\tv\t0\n"],
            [(KEPT, "p", "entailed")],
            [("u", "v", "not entailed")],
        ),
        (
            "TREC",
            [f"DESC:manner {KEPT}\nNUM:date {TAKEN}\n".encode(), b"NUM:dist caf\xe9 ?\n"],
            [(KEPT, "DESC")],
            [("café ?", "NUM")],
        ),
    ],
)
def test_files_are_read_as_they_are_written(
    name: str, contents: list[bytes], train: list[tuple[str, ...]], test: list[tuple[str, ...]], tmp_path: Path
) -> None:
    data = load(name, put(tmp_path, name, contents))
    assert rows(data, "train") == train and rows(data, "test") == test
    assert data.monitor == FORMATS[name].monitor and (data.kind == "regression") == (FORMATS[name].span is not None)
    assert data.label["train"].dtype == (torch.float32 if data.kind == "regression" else torch.int64)
    assert sum("SHA-256 differs" in warning for warning in data.warnings) == len(contents)


def test_the_fine_classes_of_trec_are_those_of_its_training_file(tmp_path: Path) -> None:
    contents = [f"DESC:manner {KEPT}\nNUM:date {TAKEN}\n".encode(), b"NUM:date y\n"]
    data = load("TREC-50", put(tmp_path, "TREC-50", contents))
    assert data.labels == ["DESC:manner", "NUM:date"] and data.label["test"].tolist() == [1]
    contents[1] = b"NUM:dist y\n"
    with pytest.raises(UsageError, match=r"test.txt, line 1: label 'NUM:dist' is not one of DESC:manner, NUM:date"):
        load("TREC-50", put(tmp_path, "TREC-50", contents))


def test_hashed_splits_equal_an_independent_computation_and_keep_equal_texts_together(tmp_path: Path) -> None:
    # what a byte 0x85 is in latin-1 must not end a line, and texts that both files have stay in one split
    negative = [f"neg {i}" for i in range(200)] + ["both", "caf\xe9 \x85 x"]
    positive = [f"pos {i}" for i in range(200)] + ["both", "both", "", "  padded "]
    contents = ["\n".join(part).encode("latin-1") for part in (negative, positive)]
    data = load("MR", put(tmp_path, "MR", contents))
    want: dict[str, list[tuple[str, int]]] = {split: [] for split in SPLITS}
    for label, part in enumerate((negative, positive)):
        for text in (line.strip() for line in part if line.strip()):
            tenth = int.from_bytes(hashlib.sha256(text.encode("utf-8")).digest()[:4], "big") % 10
            want["train" if tenth < 8 else "valid" if tenth == 8 else "test"].append((text, label))
    for split in SPLITS:
        assert list(zip(data.first[split], data.label[split].tolist(), strict=True)) == want[split]
    sets = [set(data.first[split]) for split in SPLITS]
    assert not sets[0] & sets[1] and not sets[0] & sets[2] and not sets[1] & sets[2]
    assert sum("both" in part for part in sets) == 1


COUNTS = {
    "SST-2": (6920, 872, 1821, 2),
    "SST-5": (8544, 1101, 2210, 5),
    "MRPC": (3576, 500, 1725, 2),
    "STS-B": (5749, 1500, 1379, 0),
    "SICK-R": (4500, 500, 4927, 0),
    "SICK-E": (4500, 500, 4927, 3),
}
POOLED = {  # train and valid (or all), test, classes
    "CoLA": (8551, 527 + 516, 2),
    "TREC": (5452, 500, 6),
    "TREC-50": (5452, 500, 50),
    "WNLI": (635, 71, 2),
    "AG-News": (7600, None, 4),
    "SUBJ": (10_000, None, 2),
    "MR": (10_662, None, 2),
    "CR": (2407 + 1368 - 4, None, 2),
    "MPQA": (3312 + 7294 - 3, None, 2),
}


@pytest.mark.parametrize("name", FORMATS)
def test_real_sets_have_the_published_sizes(name: str, data_dir: Path) -> None:
    data = load(name, data_dir)
    sizes = {split: len(data.label[split]) for split in SPLITS}
    assert not [warning for warning in data.warnings if "SHA-256" in warning]
    assert all(len(data.first[split]) == sizes[split] for split in SPLITS)
    if name in COUNTS:
        assert (*sizes.values(), len(data.labels)) == COUNTS[name]
        return
    pool, test, classes = POOLED[name]
    assert len(data.labels) == classes
    if test is None:
        assert sum(sizes.values()) == pool
        parts = [set(data.first[split]) for split in SPLITS]
        assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    else:
        assert sizes["train"] + sizes["valid"] == pool and sizes["test"] == test
        assert not set(data.first["train"]) & set(data.first["valid"])
    assert {bucket(text) for text in data.first["valid"]} == {8}
    assert not {bucket(text) for text in data.first["train"]} & {8}


def test_every_text_set_is_in_the_table_of_data_sets() -> None:
    assert [name for name, entry in DATA.items() if entry.kind == "text"] == list(FORMATS)


@pytest.mark.parametrize(
    ("name", "train", "message"),
    [
        (
            "SST-2",
            b"a\t1\nno label\n",
            r"train.tsv, line 2: expected 2 columns with tabs between them, got 1: 'no label'",
        ),
        ("SST-2", b"a\t1\nb\t2\n", r"train.tsv, line 2: label '2' is not one of 0, 1"),
        ("SST-2", b"a\t1\n \t0\n", r"train.tsv, line 2: an empty text or label"),
        ("SST-2", b"a\t1\ncaf\xe9\t0\n", r"train.tsv is not UTF-8 text \(byte 7\)"),
        ("SST-5", b"3\n", r"stsa.fine.train, line 1: expected a label, a blank and a text, got '3'"),
        ("STS-B", b"g\tf\ty\t1\t5.1\ta\tb\n", r"sts-train.csv, line 1: expected a number from 0 to 5, got '5.1'"),
        ("STS-B", b"g\tf\ty\t1\tnan\ta\tb\n", r"sts-train.csv, line 1: expected a number from 0 to 5, got 'nan'"),
        ("STS-B", b"g\tf\ty\t1\t5\ta\tb\tc\n", r"line 1: expected 7 or 9 columns"),
        ("TREC", b"DESC question\n", r"train.txt, line 1: expected COARSE:fine before the question, got 'DESC'"),
        ("SST-2", b"", r"the train split of SST-2 holds no text"),
    ],
)
def test_a_bad_line_is_named_by_file_and_line(name: str, train: bytes, message: str, tmp_path: Path) -> None:
    good = {"SST-2": b"a\t1\n", "SST-5": b"1 a\n", "STS-B": b"g\tf\ty\t1\t2\ta\tb\n", "TREC": b"DESC:x a\n"}[name]
    contents = [train] + [good] * (len(DATA[name].files) - 1)
    with pytest.raises(UsageError, match=message):
        load(name, put(tmp_path, name, contents))


def test_a_missing_set_says_what_goes_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HYREL_DATA", raising=False)
    with pytest.raises(UsageError, match=r"text/MR.*rt-polarity.neg, rt-polarity.pos.*sent-conv-torch"):
        load("MR", tmp_path)


def own(folder: Path, **files: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        stem, _, ending = name.partition("_")
        (folder / f"{stem}.{ending}").write_bytes(content.encode("utf-8"))
    return folder


def test_a_folder_of_ones_own_has_classes_in_order(tmp_path: Path) -> None:
    lines = "\ufefftext\tlabel\r\na\t10\r\nb c\t2\r\n\r\n"
    data = own_texts(own(tmp_path / "o", train_tsv=lines, dev_tsv="x\t2\n", test_txt="y\t10\n"))
    assert data.labels == ["2", "10"] and data.split == "own" and data.monitor == "accuracy"
    assert rows(data, "train") == [("a", "10"), ("b c", "2")] and rows(data, "valid") == [("x", "2")]
    assert load(str(tmp_path / "o"), kind="text").sha256 == data.sha256


def test_a_csv_file_may_quote_commas_and_line_ends(tmp_path: Path) -> None:
    train = 'text_a,text_b,score\n"a, b","c ""d""\nnext",3.5\nx,y,1\n'
    data = own_texts(own(tmp_path / "o", train_csv=train, valid_csv="p,q,2\n", test_csv="r,s,0.5\n"))
    assert data.kind == "regression" and data.monitor == "spearman"
    assert rows(data, "train") == [("a, b", 'c "d"\nnext', "3.5"), ("x", "y", "1")]


def test_without_a_validation_file_a_tenth_is_held_out(tmp_path: Path) -> None:
    train = "".join(f"text {i % 150}\t{i % 2}\n" for i in range(300))
    data = own_texts(own(tmp_path / "o", train_tsv=train, test_tsv="y\t1\n"))
    chosen = {
        f"text {i}" for i in range(150) if int(hashlib.sha256(f"text {i}".encode()).hexdigest()[:8], 16) % 10 == 8
    }
    assert set(data.first["valid"]) == chosen and not chosen & set(data.first["train"])
    assert len(data.first["train"]) + len(data.first["valid"]) == 300
    (tmp_path / "o" / "train.tsv").unlink()
    (tmp_path / "o" / "train.tsv.gz").write_bytes(gzip.compress(train.encode()))
    assert own_texts(tmp_path / "o").sha256 == data.sha256


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"train_tsv": "a\t1\n"}, r"holds no test.tsv, test.csv or test.txt \(or .gz\); a line is text TAB label"),
        (
            {"train_tsv": "a\t1\n", "train_csv": "a,1\n", "test_tsv": "b\t1\n"},
            r"holds train.tsv and train.csv; leave one",
        ),
        (
            {"train_tsv": "a\t1\nb\tc\t0\n", "valid_tsv": "a\t1\n", "test_tsv": "b\t1\n"},
            r"train.tsv, line 2: expected 2 columns",
        ),
        (
            {"train_tsv": "a\tb\t1\nc\t0\n", "valid_tsv": "a\t1\n", "test_tsv": "b\t1\n"},
            r"train.tsv, line 2: expected 3 columns",
        ),
        (
            {"train_tsv": "a\tb\t1\n", "valid_tsv": "a\t1\n", "test_tsv": "b\t1\n"},
            r"valid.tsv holds single texts and train.tsv pairs",
        ),
        (
            {"train_tsv": "a\t1\n", "valid_tsv": "a\t1\n", "test_tsv": "b\t2\n"},
            r"test.tsv, line 1: label '2' is not one of 1",
        ),
        (
            {"train_csv": "a,1\nb,c,d,0\n", "valid_csv": "a,1\n", "test_csv": "b,1\n"},
            r"train.csv, line 2: expected 2 columns with commas",
        ),
        ({"train_csv": 'a,1\n"b,0\n', "valid_csv": "a,1\n", "test_csv": "b,1\n"}, r"train.csv, line 2: not CSV"),
        (
            {"train_tsv": "a\t1.5\nb\tx\n", "valid_tsv": "a\t2\n", "test_tsv": "b\t1\n"},
            r"valid.tsv, line 1: label '2' is not one of 1.5, x",
        ),
    ],
)
def test_what_is_wrong_with_ones_own_files_is_said(files: dict[str, str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        own_texts(own(tmp_path / "o", **files))


def test_texts_that_are_trained_on_and_evaluated_are_counted(tmp_path: Path) -> None:
    data = own_texts(own(tmp_path / "o", train_tsv="a\t1\nb\t0\n", valid_tsv="c\t1\n", test_tsv="a\t1\nd\t0\n"))
    assert data.warnings == ["1 of 2 test texts of o are training texts too"]


def written(folder: Path, **splits: list[str]) -> Texts:
    for split, lines in splits.items():
        (folder / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    return own_texts(folder)


def test_a_label_on_first_lines_alone_may_be_a_header(tmp_path: Path) -> None:
    rows = {split: [f"{split} good\tyes", f"{split} bad\tno", f"{split} fair\tyes"] for split in SPLITS}
    assert written(tmp_path, **rows).warnings == []
    data = written(tmp_path, **{split: ["text\tsentiment", *lines] for split, lines in rows.items()})
    said = [line for line in data.warnings if "is it a header" in line]
    assert [line.split(":")[0] for line in said] == [f"{split}.tsv, line 1" for split in SPLITS]
    assert "'sentiment' stands on first lines alone" in said[0] and "label or score" in said[0]
    data = written(tmp_path, **{split: ["text\tlabel", *lines] for split, lines in rows.items()})
    assert data.warnings == [] and data.labels == ["no", "yes"]


@pytest.mark.parametrize("odd", ["nan", "high"])
def test_a_label_that_is_no_number_among_numbers(odd: str, tmp_path: Path) -> None:
    rows = {split: [f"{split} {i}\t{i / 4}" for i in range(9)] for split in SPLITS}
    assert written(tmp_path, **rows).kind == "regression"
    rows["test"].append(f"odd\t{odd}")
    with pytest.raises(UsageError, match=f"labels are numbers, but for 1 such as '{odd}'"):
        written(tmp_path, **rows)
