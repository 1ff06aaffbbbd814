"""Each format prints what it is given and nothing else: escaping, heads, marks; LaTeX compiles."""

import csv
import io
import math
import re
import shutil
import subprocess
from html.parser import HTMLParser

import pytest
from rich.console import Console

from densessl.d2_transfer.tables import from_paper, layouts
from densessl.d2_transfer.tables.model import Cell, Column, PublishedCell, Row, Table, mark_best
from densessl.d2_transfer.tables.render import FORMATS, html, latex, markdown, terminal

NASTY = [
    "<script>alert(1)</script>",
    "a_b & 50% #1 ~ ^ \\ {x} $y$",
    "pipe | pipe",
    "`code` *bold* __init__ ~~gone~~ &lt;",
    "[link](http://example.org) ![i](x) [^1]",
    "two\nlines\r\n\ttab",
    "\x1b[31mred\x1b[0m \x07 \u202egnorw \ud800",
    "\"quotes\" ''two'' a--b ---- ?`!` ,,x,, <<y>>",
    "[not an option] *star",
    "\\input{/etc/passwd} \\end{tabular} %",
    "é ü ñ Å ş ő 中文 Ω 🙂 ß ø ℝ",
]
VOID = {"meta", "br", "hr", "img", "input", "link"}


def table(labels, published=True):
    columns = [
        Column("box", "AP", "Object Det.", "voc_det_c4", "", "bbox/AP"),
        Column("mask", "AP", "Instance Seg.", "voc_det_c4", "", "segm/AP"),
    ]
    rows = [
        Row(
            label,
            method=label,
            data=label,
            facts={"data": label},
            cells={"box": Cell(50.0 + n, 0.25, 5, delta=-1.5), "mask": Cell(30.0, 0.1, 5)},
            published={"box": PublishedCell(50.0, notes=(label,))} if published else {},
            notes=(label,),
            seeds=[1],
        )
        for n, label in enumerate(labels)
    ]
    made = Table(
        "<b>Title</b> & 100 %_x_",
        columns,
        rows,
        facts=("data",),
        sections=["a section | <i>"],
        baselines=[""],
        cite="Somebody, Table 1",
        notes=["a note: " + labels[0]],
    )
    mark_best(made)
    return made


class Page(HTMLParser):
    """The text and the tags of a page; every tag that opens must close in order."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.open, self.tags, self.text, self.rows, self.spans = [], [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append(0)
        if tag in ("td", "th"):
            self.rows[-1] += int(dict(attrs).get("colspan", 1))
            self.text.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] != "style":
            if self.text:
                self.text[-1] += data
            else:
                self.text.append(data)


def test_html_shows_nasty_names_as_text():
    text = FORMATS["html"]([table(NASTY)])
    page = Page(text)
    known = {"html", "head", "meta", "title", "style", "body", "div", "table", "caption", "thead"}
    known |= {"tbody", "tr", "th", "td", "sup", "b", "p"}
    assert set(page.tags) <= known
    assert len(set(page.rows)) == 1  # every row is as wide as the heads
    shown = " ".join(page.text)
    for name in NASTY[:5] + NASTY[7:]:
        assert name in shown
    assert "two lines tab" in shown and "\x1b" not in text and "\u202e" not in text
    text.encode()  # no half of a surrogate pair


def test_html_needs_nothing_else_and_has_light_and_dark():
    text = FORMATS["html"]([table(["moco"])])
    assert "color-scheme: light dark" in text and "viewport" in text
    assert not re.search(r"src=|href=|url\(|@import|<script", text)
    fragment = html.fragment(table(["moco"]))
    assert fragment.startswith('<div class="densessl">') and fragment in text


def cells_of(line):
    """The cells of a line of Markdown, as GitHub splits them."""
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def test_markdown_shows_nasty_names_as_text():
    text = FORMATS["md"]([table(NASTY)])
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert {len(cells_of(row)) for row in rows} == {4}  # none breaks its row
    assert "<script" not in text and "<b>" not in text and "\x1b" not in text
    for line in rows[2:]:
        label = cells_of(line)[0]
        assert "](" not in label.replace("\\](", "")
    assert "\\`code\\` \\*bold\\* \\_\\_init\\_\\_ \\~\\~gone\\~\\~ &amp;lt;" in text
    assert "pipe \\| pipe" in text and "two lines tab" in text
    text.encode()


def test_markdown_leaves_plain_names_readable():
    for name in ("voc_det_c4", "moco [aaaaaaaa]", "ReSim-FPN^T (400 ep)", "AP 59.1 ± 0.2"):
        assert markdown.escape(name) == name


def test_the_terminal_gets_no_control_characters():
    text = FORMATS["terminal"]([table(NASTY)])
    assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f\u202e\ud800]", text)
    assert "<script>alert(1)</script>" in text and "a_b & 50% #1 ~ ^ \\ {x} $y$" in text


def test_a_coloured_terminal_shows_best_and_second():
    made = table(["a", "b", "c"], published=False)
    console = Console(width=120, force_terminal=True, color_system="standard")
    drawn = terminal.render([made], console)
    assert re.search(r"\x1b\[1;32m52\.0 ± 0\.2", drawn)
    assert re.search(r"\x1b\[4m51\.0 ± 0\.2", drawn)


def test_csv_reads_back_whole():
    lines = list(csv.reader(io.StringIO(FORMATS["csv"]([table(NASTY)]))))
    assert {len(line) for line in lines} == {len(lines[0])}
    labels = [line[2] for line in lines[1::2]]
    assert labels[:5] == NASTY[:5] and labels[7:] == NASTY[7:]
    kinds = {(line[9], line[3]) for line in lines[1:]}
    assert kinds == {("bbox/AP", "both"), ("segm/AP", "measured")}


def test_csv_has_text_that_no_spreadsheet_runs_and_numbers_that_it_reads():
    nasty = ["=1+1", "+cmd|' /C calc'!A0", "-2+3", "@SUM(A1)", "\t=1", "＝1+1", "=-0.5"]
    plain = ["-0.5", "+1.5e-3", "moco", "a=b", "−0.3"]
    made = table(nasty + plain)
    made.rows[0].cells["box"].mean = -0.3
    text = FORMATS["csv"]([made])
    lines = list(csv.DictReader(io.StringIO(text)))
    for column in ("row", "method", "data"):
        found = [line[column] for line in lines if line["metric"] == "bbox/AP"]
        assert found == [f"'{name.strip()}" for name in nasty] + plain
    for line in csv.reader(io.StringIO(text)):
        for value in line:
            assert not re.match("[=+@＝-]", value) or math.isfinite(float(value))
    assert (lines[0]["mean"], lines[0]["over_baseline"]) == ("-0.3", "-1.5")


def test_latex_has_heads_over_groups_and_no_bare_specials():
    text = FORMATS["latex"]([table(NASTY)])
    assert r" &  & \multicolumn{1}{c}{Object Det.} & \multicolumn{1}{c}{Instance Seg.} \\" in text
    assert r"\cmidrule(lr){3-3} \cmidrule(lr){4-4}" in text
    assert text.isascii()
    assert r"\textless{}script\textgreater{}" in text
    assert r"a\_b \& 50\% \#1 \textasciitilde{} \textasciicircum{} \textbackslash{} \{x\}" in text
    assert r"\input" not in text and "---" not in text
    assert latex.escape("é中") == r"\'{e}{[}U+4E2D{]}"
    wide = FORMATS["latex"]([from_paper.build(layouts.find("setsim/table6"))[0]])
    assert r"\cmidrule(lr){2-4} \cmidrule(lr){5-7} \cmidrule(lr){8-10}" in wide


LATEX = next(filter(shutil.which, ("pdflatex", "lualatex", "xelatex", "tectonic")), None)


@pytest.mark.skipif(LATEX is None, reason="no LaTeX is installed")
def test_every_table_compiles_with_a_real_latex(tmp_path):
    tables = [from_paper.build(layouts.find(name))[0] for name in layouts.names()]
    tables += [table(NASTY), table(NASTY, published=False), table(["moco"])]
    body = "\n".join(FORMATS["latex"]([each]) + r"\clearpage" for each in tables)
    (tmp_path / "all.tex").write_text(
        "\\documentclass{article}\n\\usepackage{booktabs}\n\\begin{document}\n"
        f"{body}\n\\end{{document}}\n"
    )
    options = [] if LATEX == "tectonic" else ["-interaction=nonstopmode", "-halt-on-error"]
    ran = subprocess.run(
        [LATEX, *options, "all.tex"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert ran.returncode == 0, ran.stdout[-3000:]
    assert (tmp_path / "all.pdf").stat().st_size > 10_000
    assert "Missing character" not in ran.stdout and "Warning: No" not in ran.stdout


def test_footnotes_are_told_once_and_marked_where_they_belong():
    made = table(["moco", "setsim"])
    made.rows[1].published["mask"] = PublishedCell(31.0, suspect=True, notes=("suspect: copied",))
    text = FORMATS["md"]([made])
    assert "| moco †<sup>a</sup> |" in text and "<sup>a</sup> moco  " in text
    assert "| setsim † | setsim | 50.0<sup>b</sup> | 31.0<sup>c</sup> |" in text
    assert text.count("suspect: copied") == 1


def test_what_all_published_numbers_share_needs_no_mark():
    made = table(["moco", "setsim"])
    for row in made.rows:
        row.notes = ()
        row.published = {"box": PublishedCell(50.0, notes=("epochs are not known",))}
    text = FORMATS["md"]([made])
    assert "<sup>" not in text and text.count("epochs are not known") == 1


def test_published_and_ours_are_ranked_apart_and_ties_as_printed_are_equal():
    made = table(["a", "b", "c", "d"])
    for row, ours, theirs in zip(
        made.rows, (50.04, 50.0, 49.0, 48.0), (70.0, 69.0, 68.0, 67.0), strict=True
    ):
        row.cells["box"].mean = ours
        row.published["box"].mean = theirs
    mark_best(made)
    cells = [row.cells["box"] for row in made.rows]
    assert [cell.best for cell in cells] == [True, True, False, False]
    assert [cell.second for cell in cells] == [False, False, True, False]
    cells = [row.published["box"] for row in made.rows]
    assert [cell.best for cell in cells] == [True, False, False, False]
    assert [cell.second for cell in cells] == [False, True, False, False]
