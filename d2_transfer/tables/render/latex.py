"""Tables for a paper: LaTeX with booktabs. The best of a column is bold, the second underlined."""

import re
import unicodedata
from collections.abc import Sequence

from ..model import Table
from .sheet import Entry, Sheet, SheetLine, sheet

NEEDS = "% needs \\usepackage{booktabs}"
SYMBOLS = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "$": r"\$",
    "&": r"\&",
    "%": r"\%",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\char34{}",
    "`": r"\`{}",
    "[": r"{[}",  # not an option of what stands before
    "]": r"{]}",
    "*": r"{*}",
    "±": r"$\pm$",
    "−": r"$-$",
    "–": r"\textendash{}",
    "—": r"\textemdash{}",
    "†": r"$^{\dagger}$",
    "×": r"$\times$",
    "→": r"$\rightarrow$",
    "…": r"\ldots{}",
    "ß": r"\ss{}",
    "ø": r"\o{}",
    "Ø": r"\O{}",
    "æ": r"\ae{}",
    "Æ": r"\AE{}",
    "ł": r"\l{}",
    "Ł": r"\L{}",
}
LIGATURE = re.compile(r"([-',])(?=\1)")  # of two hyphens LaTeX makes a dash
ACCENTS = {
    "\u0300": r"\`",
    "\u0301": r"\'",
    "\u0302": r"\^",
    "\u0303": r"\~",
    "\u0304": r"\=",
    "\u0306": r"\u",
    "\u0307": r"\.",
    "\u0308": r"\"",
    "\u030a": r"\r",
    "\u030b": r"\H",
    "\u030c": r"\v",
    "\u0327": r"\c",
}


def render(tables: Sequence[Table]) -> str:
    """A ``table`` environment for each table; any LaTeX compiles it with booktabs."""
    return f"{NEEDS}\n" + "\n".join(_table(sheet(table)) for table in tables)


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, in ASCII; ``[U+4E2D]`` for what its fonts do not have."""
    return LIGATURE.sub(r"\1{}", "".join(map(_character, text)))


def _character(each: str) -> str:
    if each in SYMBOLS:
        return SYMBOLS[each]
    if each.isascii():
        return each
    base, *marks = list(unicodedata.normalize("NFD", each))
    if base.isascii() and base.isalpha() and len(marks) == 1 and marks[0] in ACCENTS:
        return f"{ACCENTS[marks[0]]}{{{base}}}"
    return f"{{[}}U+{ord(each):04X}{{]}}"


def _table(page: Sheet) -> str:
    spec = "".join("r" if number else "l" for number in page.numeric)
    lines = [r"\begin{table}[t]", r"\centering", rf"\caption{{{escape(page.title)}}}\smallskip"]
    lines += [_size(page), rf"\begin{{tabular}}{{{spec}}}", r"\toprule", *_head(page), r"\midrule"]
    for nth, line in enumerate(page.lines):
        begins = nth == 0 or line.section != page.lines[nth - 1].section
        if begins and nth:
            lines.append(r"\midrule")
        if begins and (title := page.sections[line.section]):
            width = len(page.numeric)
            lines.append(rf"\multicolumn{{{width}}}{{l}}{{\textit{{{escape(title)}}}}} \\")
        lines.append(_line(line))
    lines += [r"\bottomrule", r"\end{tabular}"]
    notes = [escape(note) for note in page.notes]
    notes += [rf"$^{{\mathrm{{{letter}}}}}$ {escape(text)}" for letter, text in page.footnotes]
    if notes:
        lines += ["", r"\medskip", r"\begin{minipage}{\linewidth}\footnotesize"]
        lines += [rf"{text}\par" for text in notes]
        lines.append(r"\end{minipage}")
    return "\n".join([*lines, r"\end{table}"]) + "\n"


def _size(page: Sheet) -> str:
    """Smaller letters and gaps for a table that is wide, by its characters."""
    texts = [(line.label, *map(Entry, line.facts), *line.cells) for line in page.lines]
    columns = zip(
        *[[len(entry.text) // (entry.over or 1) for entry in line] for line in texts], strict=True
    )
    width = sum(map(max, columns)) + 2 * len(page.numeric)
    if width <= 75:
        return r"\small"
    size, gap = (r"\footnotesize", 3) if width <= 95 else (r"\scriptsize", 2)
    return rf"{size}\setlength{{\tabcolsep}}{{{gap}pt}}"


def _head(page: Sheet) -> list[str]:
    """The heads, below those of the groups with a rule under each."""
    lines = []
    before = 1 + len(page.facts)
    if page.groups:
        titles, rules, start = [""] * before, [], before + 1
        for title, width in page.groups:
            titles.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(title)}}}")
            rules.append(rf"\cmidrule(lr){{{start}-{start + width - 1}}}")
            start += width
        lines += [" & ".join(titles) + r" \\", " ".join(rules)]
    heads = map(escape, (page.first, *page.facts, *page.heads))
    return [*lines, " & ".join(heads) + r" \\"]


def _line(line: SheetLine) -> str:
    cells = [_entry(line.label), *map(escape, line.facts), *map(_entry, line.drawn)]
    if line.kind == "difference":
        cells = [rf"\textit{{{cell}}}" if cell else "" for cell in cells]
    return " & ".join(cells) + r" \\"


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.best:
        text = rf"\textbf{{{text}}}"
    elif entry.second:
        text = rf"\underline{{{text}}}"
    marks = re.sub(r"(.+)", r"$^{\\mathrm{\1}}$", entry.marks)
    if entry.over > 1:
        return rf"\multicolumn{{{entry.over}}}{{r}}{{{text}{marks}}}"
    return text + marks
