from __future__ import annotations

import csv
import html.parser
import io
import math
import os
import re
import subprocess
import sys

import pytest

from tasks.errors import UsageError
from tasks.report.tables import FORMATS, render

EVIL = "<script>alert('x')</script> \"quoted\" & <img src=http://evil.example/x onerror=alert(1)>"


class Page(html.parser.HTMLParser):
    """Start tags with attributes, text, and the content of script and style."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data):
        self.text.append(data)


# Tables

ROWS = [("a_b & 50% <x>", 0.123456, 1), ("=SUM(A1)", None, -2), ('say "hi", {you}', math.nan, 30)]
COLUMNS = ["model|x", "mrr", "n"]


def test_csv_round_trips_in_full_precision_and_runs_no_formula():
    read = list(csv.reader(io.StringIO(render(COLUMNS, ROWS, "csv"))))
    assert read == [
        COLUMNS,
        ["a_b & 50% <x>", "0.123456", "1"],
        ["'=SUM(A1)", "", "-2"],
        ['say "hi", {you}', "", "30"],
    ]
    for start in "=+-@":
        assert render(["c"], [(f"{start}x",)], "csv") == f"c\n'{start}x\n"


def test_latex_escapes_and_uses_booktabs():
    lines = render(COLUMNS, ROWS, "latex").splitlines()
    assert lines[:3] == [r"\begin{tabular}{lrr}", r"\toprule", r"model\textbar{}x & mrr & n \\"]
    assert lines[4] == r"a\_b \& 50\% \textless{}x\textgreater{} & 0.123 & 1 \\"
    assert lines[6] == r'say "hi", \{you\} & -- & 30 \\'
    assert lines[-2:] == [r"\bottomrule", r"\end{tabular}"]
    special = render(["c"], [("\\#$^~_",)], "latex").splitlines()[4]
    assert special == r"\textbackslash{}\#\$\textasciicircum{}\textasciitilde{}\_ \\"
    assert render(["c"], [("two\nlines",)], "latex").splitlines()[4] == r"two lines \\"


def test_html_table_is_escaped():
    text = render(COLUMNS, [(EVIL, 0.5, 1)], "html")
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "img")]
    assert EVIL in "".join(page.text)
    assert all(attrs.get("scope") == "col" for tag, attrs in page.tags if tag == "th")


def test_text_and_terminal_tables_keep_every_cell():
    for name in ("text", "table"):
        text = render(COLUMNS, [("[bold]x[/bold]", 0.5, 1), ("y", 0.25, 22)], name, width=80)
        assert all(cell in text for cell in ("[bold]x[/bold]", "0.500", "0.250", "22", *COLUMNS))
    narrow = render(["phrase"], [("abcdefghij" * 3,)], "table", width=20)
    assert re.sub(r"[^a-j]", "", narrow.split("┡")[1]) == "abcdefghij" * 3
    code = "from tasks.report.tables import render; print(render(['phrase'], [('abcdefghij' * 12,)], 'table'))"
    env = {key: value for key, value in os.environ.items() if key != "COLUMNS"}
    piped = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    assert "abcdefghij" * 12 in piped  # a pipe has no width


@pytest.mark.parametrize("name", FORMATS)
def test_every_format_takes_no_rows_and_refuses_ragged_ones(name):
    assert "mrr" in render(["mrr"], [], name)
    with pytest.raises(ValueError, match="row 1 has 2 values for 1 columns"):
        render(["a"], [(1,), (1, 2)], name)


def test_unknown_format_suggests():
    with pytest.raises(UsageError, match="did you mean 'latex'"):
        render(["a"], [], "latx")
