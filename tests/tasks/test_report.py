from __future__ import annotations

import html.parser
import math
import os
import re
import shutil

import numpy as np
import pytest

from tasks.report.disk import draw_disk
from tasks.report.html import Column, Report, format_cell, inline_svg

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


def disk_points(n: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    angle, radius = rng.uniform(0, 2 * np.pi, n), np.tanh(rng.uniform(0, 3, n) / 2)
    return radius[:, None] * np.stack([np.cos(angle), np.sin(angle)], axis=1)


@pytest.fixture
def report() -> Report:
    report = Report(f"Title {EVIL}", EVIL)
    section = report.section(f"Pairs {EVIL}", EVIL)
    section.add_text(EVIL).add_code(EVIL).add_list([EVIL], title=EVIL).add_numbers({EVIL: EVIL})
    rows = [(f"{EVIL} {i}", i / 7, i, None) for i in range(12)]
    evidence = [[(EVIL, [EVIL])]] + [[]] * 11
    section.add_table([Column(EVIL, help=EVIL), "p", "n", "gap"], rows, caption=EVIL, evidence=evidence, page=5)
    points = disk_points(4)
    svg = draw_disk(points, edges=[(0, 1)], labels={0: EVIL, 1: "$x^2$ \u4e2d"}, depth=[0, 1, 2, 2], title=EVIL)
    section.add_figure(svg, EVIL)
    report.section("Again").add_figure(svg, "the same figure")
    return report


def test_all_text_is_escaped(report):
    text = report.render()
    page = Page(text)
    assert [tag for tag, _ in page.tags].count("script") == 1  # our own
    assert not [tag for tag, _ in page.tags if tag in ("img", "b", "iframe", "object")]
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert "".join(page.text).count("alert('x')") >= 15  # shown as text, wherever it was given
    assert "<script>alert" not in text


def test_report_loads_nothing(report):
    text = report.render()
    for tag, attrs in Page(text).tags:
        for name, value in attrs.items():
            if name in ("src", "href", "xlink:href", "action", "poster", "srcset", "data"):
                assert value.startswith(("#", "data:")), (tag, name, value)
    assert not re.search(r"@import|url\(\s*['\"]?(?!#)|fetch\(|XMLHttpRequest|import\(", text)
    left = re.sub(r'xmlns(:\w+)?="[^"]*"', "", text).replace("http://evil.example", "")
    assert "http:" not in left and "https:" not in left


def test_ids_are_unique_and_references_resolve(report):
    tags = Page(report.render()).tags
    ids = [attrs["id"] for _, attrs in tags if "id" in attrs]
    assert len(set(ids)) == len(ids)
    wanted = {attrs["href"][1:] for _, attrs in tags if attrs.get("href", "").startswith("#")}
    wanted |= {attrs[key] for _, attrs in tags for key in ("aria-controls", "aria-labelledby") if key in attrs}
    wanted |= {ref for _, attrs in tags for v in attrs.values() for ref in re.findall(r"url\(#([^)]+)\)", v or "")}
    assert wanted and wanted <= set(ids)


def test_accessible_names(report):
    tags = Page(report.render()).tags
    assert all("scope" in attrs for tag, attrs in tags if tag == "th")
    assert [attrs["lang"] for tag, attrs in tags if tag == "html"] == ["en"]
    assert all(attrs.get("aria-label") for _, attrs in tags if attrs.get("role") in ("img", "region"))
    names = [tag for tag, _ in tags]
    assert names.count("caption") == names.count("table") == 1 and names.count("h1") == 1


def test_same_content_same_bytes(report, tmp_path):
    assert report.save(tmp_path / "a.html").read_bytes() == report.save(tmp_path / "b.html").read_bytes()


def test_save_is_atomic(report, tmp_path, monkeypatch):
    path = tmp_path / "report.html"
    path.write_text("old")

    def full(_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            report.save(path)
    assert path.read_text() == "old" and [p.name for p in tmp_path.iterdir()] == ["report.html"]
    report.save(path)
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    Report("half a surrogate \ud800").save(path)
    assert "half a surrogate ?" in path.read_text(encoding="utf-8")


def test_table_mistakes_are_named():
    section = Report("x").section("s")
    with pytest.raises(ValueError, match=r"table 'c', row 1: 1 values for 2 columns"):
        section.add_table(["a", "b"], [(1, 2), (1,)], caption="c")
    with pytest.raises(ValueError, match="1 evidence entries for 2 rows"):
        section.add_table(["a"], [(1,), (2,)], caption="c", evidence=[[]])
    section.add_table(["a"], [], caption="nothing")
    assert "No rows." in Report("x").render() or "No rows." in _render(section)


def _render(section):
    report = Report("x")
    report.sections[section.title] = section
    return report.render()


def test_sections_are_found_by_name():
    report = Report("x")
    assert report.section("A", "intro") is report.section("A") and list(report.sections) == ["A"]
    report.section("中"), report.section("文")
    ids = [attrs["id"] for tag, attrs in Page(report.render()).tags if tag == "section"]
    assert len(set(ids)) == 3


@pytest.mark.parametrize(
    "bad",
    [
        "<p>no svg</p>",
        "<svg><script>x()</script></svg>",
        '<svg onload="x()"></svg>',
        '<svg xmlns:xlink="http://www.w3.org/1999/xlink"><use xlink:href="https://evil.example/x.svg#a"/></svg>',
        '<svg><rect fill="url(https://evil.example/x)"/></svg>',
        "<svg><style>@import 'x'</style></svg>",
        '<svg><image href="https://evil.example/x.png"/></svg>',
        '<svg><a href="javascript:x()"/></svg>',
        "<svg><foreignObject></foreignObject></svg>",
    ],
)
def test_unsafe_svg_is_refused(bad):
    with pytest.raises(ValueError, match="SVG"):
        inline_svg(bad, "p")


@pytest.mark.parametrize(
    ("value", "expected"),
    [(None, "–"), (math.nan, "–"), (0.12345, "0.12"), (7, "7"), (np.float32(0.5), "0.50"), (np.int64(3), "3"),
     (["a", 0.5], "a, 0.50"), (True, "True"), (math.inf, "inf"), ({*"zyxwvu"}, "u, v, w, x, y, z")],
)  # fmt: skip
def test_format_cell(value, expected):
    assert format_cell(value, ".2f") == expected


@pytest.mark.skipif(
    not shutil.which("chromium") or not shutil.which("chromedriver"), reason="needs chromium, its driver"
)
def test_search_sort_and_evidence_in_a_browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver")
    rows = [("delta <script>", 10.0), ("alpha", None), ("gamma", 9.0), ("beta", 100.0)] + [
        (f"x{i}", -i) for i in range(8)
    ]
    report = Report("t")
    evidence = [[("Facts", ["a fact of delta"])]] + [[]] * 11
    report.section("s").add_table(["phrase", "score"], rows, caption="c", evidence=evidence, page=5)
    options = webdriver.ChromeOptions()
    for argument in ("--headless", "--no-sandbox", "--disable-gpu", "--window-size=390,900"):
        options.add_argument(argument)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as browser:
        browser.get(report.save(tmp_path / "r.html").as_uri())

        def shown():
            visible = "[...document.querySelectorAll('tbody')].filter(b => !b.hidden)"
            return browser.execute_script(f"return {visible}.map(b => b.rows[0].cells[1].innerText)")

        assert shown() == ["delta <script>", "alpha", "gamma", "beta", "x0"]
        header = browser.find_elements("css selector", "th button")
        header[1].click()
        assert shown()[:3] == ["beta", "delta <script>", "gamma"]
        header[1].click()
        assert shown()[:2] == ["x7", "x6"]
        sort = [th.get_attribute("aria-sort") for th in browser.find_elements("css selector", "th")]
        assert sort == [None, None, "ascending"]
        browser.find_element("css selector", ".more").click()
        assert shown()[-1] == "alpha" and len(shown()) == 12  # unknown values last
        header[0].click()
        assert shown()[0] == "alpha"
        browser.find_element("css selector", "input").send_keys("DELT")
        assert shown() == ["delta <script>"]
        assert "a fact of delta" not in browser.find_element("css selector", "table").text
        browser.find_element("css selector", "td.open button").click()
        assert "a fact of delta" in browser.find_element("css selector", "table").text
        wide = "return document.documentElement.scrollWidth <= window.innerWidth"
        assert browser.execute_script(wide)
        assert browser.execute_script("return performance.getEntriesByType('resource').length") == 0


# Redundancy


@pytest.fixture(scope="module")
def redundant(tmp_path_factory):
    """A result over a few phrases, one of them hostile, with bad lines and phrases below the minimum support."""
    from relsim.openie import read_openie
    from relsim.redundancy import redundancy

    names = [f"entity {i}" for i in range(40)]
    hostile = "wrote <script>alert('rel')</script>"
    rows = [(names[i], rel, f"<b>{names[i + 1]}</b>") for i in range(12) for rel in (hostile, "is the author of")]
    rows += [(f"<b>{names[i + 1]}</b>", "was written by", names[i]) for i in range(12)]
    rows += [(names[i], "lies near", names[-i]) for i in range(14, 30)]
    rows += [("x", "<i>seen once</i>", "y"), ("x", "seen twice", "y"), ("x", "seen twice", "z")]
    lines = ["\t".join(row) for row in rows] + ["no tabs <img src=x>", "a\t\tb"]
    path = tmp_path_factory.mktemp("openie") / "extractions.tsv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return redundancy(read_openie(path, min_support=5), neural="never"), len(lines)


def cells(block):
    return [[cell["text"] for cell in row["cells"]] for row in block["rows"]]


def table_of(report, section):
    return next(block for block in report.sections[section].blocks if block["kind"] == "table")


def test_redundancy_report_counts_everything(redundant):
    from tasks.report.redundancy import redundancy_section

    result, lines = redundant
    report = Report("r")
    redundancy_section(report, result, max_evidence=3)
    numbers = dict(report.sections["Summary"].blocks[0]["rows"])
    assert numbers["lines read"] == str(lines) and numbers["bad lines"] == "2"
    assert numbers["phrases compared"] == "4" and numbers["phrases without enough evidence"] == "2"
    assert numbers["pairs scored"] == str(result.pairs_examined)
    assert cells(table_of(report, "Left out")) == [["seen twice", "2"], ["<i>seen once</i>", "1"]]
    left_out = "\n".join(line for b in report.sections["Left out"].blocks for line in b.get("items", []))
    assert "extractions.tsv:56" in left_out and "no tabs <img src=x>" in left_out
    (cluster,) = cells(table_of(report, "Clusters"))
    assert {cluster[0], *cluster[2].split("; ")} == {"is the author of", "wrote <script>alert('rel')</script>"}


def test_redundancy_report_opens_rows_to_their_facts(redundant):
    from tasks.report.redundancy import redundancy_section

    result, _ = redundant
    report = Report("r")
    redundancy_section(report, result, max_evidence=3)
    table = table_of(report, "Ranked pairs")
    assert len(table["rows"]) == len(result.pairs)
    p = [float(row["cells"][3]["sort"]) for row in table["rows"]]
    assert p == sorted(p, reverse=True)
    by_pair = {(row["cells"][0]["text"], row["cells"][1]["text"]): row["evidence"] for row in table["rows"]}
    evidence = by_pair["is the author of", "wrote <script>alert('rel')</script>"]
    assert evidence[0] == ("Facts of both (12)", [*evidence[0][1][:3], "and 9 more"])
    assert all(re.fullmatch(r"entity \d+ – <b>entity \d+</b>", fact) for fact in evidence[0][1][:3])
    assert evidence[1][1] == evidence[2][1] == []
    inverse = by_pair["is the author of", "was written by"]
    assert "swapped" in inverse[0][0] and len(inverse[0][1]) == 4
    assert "agreement" in [column.name for column in table["columns"]]


def test_redundancy_report_is_escaped_and_says_where_it_is_cut(redundant):
    from tasks.report.redundancy import redundancy_section

    result, _ = redundant
    report = Report("r")
    redundancy_section(report, result, max_pairs=2, max_phrases=1)
    page = Page(report.render())
    assert [tag for tag, _ in page.tags].count("script") == 1
    assert not [tag for tag, _ in page.tags if tag in ("img", "b", "i")]
    text = "".join(page.text)
    assert "wrote <script>alert('rel')</script>" in text and "<i>seen once</i>" not in text
    assert f"The first 2 of {len(result.pairs)} pairs are shown" in text
    assert "the first 1 of 2" in text


def test_redundancy_report_without_a_pair():
    from relsim.facts import Facts
    from relsim.redundancy import redundancy
    from tasks.report.redundancy import redundancy_section

    report = Report("r")
    redundancy_section(report, redundancy(Facts.from_triples([("a", "r", "b")]), neural="never"))
    text = report.render()
    assert "No pair of phrases has enough evidence" in text and "No two phrases reach" in text
