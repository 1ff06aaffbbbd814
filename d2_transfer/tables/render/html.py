"""Tables as a page of HTML that needs nothing else; ``fragment`` is a table for another page."""

import re
from collections.abc import Sequence
from dataclasses import replace
from html import escape

from ..model import Table
from .sheet import NOTHING, Entry, Sheet, SheetLine, sheet

STYLE = """\
.densessl { margin: 0 0 2.5rem; }
.densessl .scroll { overflow-x: auto; }
.densessl table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.densessl caption { font-weight: 600; text-align: left; padding: .4rem 0; }
.densessl th, .densessl td { padding: .2rem .6rem; text-align: left; white-space: nowrap; }
.densessl .number { text-align: right; }
.densessl thead { border-top: 2px solid; border-bottom: 1px solid; }
.densessl .group { text-align: center; border-bottom: 1px solid; }
.densessl tbody { border-bottom: 1px solid; }
.densessl tbody:last-of-type { border-bottom: 2px solid; }
.densessl .section th { font-style: italic; font-weight: normal; }
.densessl tbody th { font-weight: normal; min-width: 7rem; }
.densessl tbody th[scope="row"] { white-space: normal; }
.densessl .published { opacity: .75; }
.densessl .difference { font-style: italic; font-size: .9em; }
.densessl .second { text-decoration: underline; }
.densessl .gain { display: inline; }
.densessl .folded { display: none; font-size: .8em; opacity: .75; }
.densessl .sideways { margin: 0; max-height: 0; overflow: hidden; font-size: .85em; opacity: .75; }
.densessl { timeline-scope: --sideways; }
.densessl .scroll { scroll-timeline: --sideways inline; }
@keyframes densessl-say { from, to { max-height: 4rem; } }
@supports (animation-timeline: --sideways) {
  .densessl .sideways { animation: densessl-say 1s linear both; animation-timeline: --sideways; }
}
@media (max-width: 40rem) {
  .densessl .fact { display: none; }
  .densessl .folded, .densessl .gain { display: block; }
  .densessl table { font-size: .875em; }
  .densessl th, .densessl td { padding: .2rem; vertical-align: top; }
  .densessl th:first-child { position: sticky; left: 0; background: var(--paper, Canvas);
    padding-left: 0; max-width: 7rem; overflow-wrap: anywhere; }
  .densessl tbody th { min-width: 6rem; }
  .densessl .section th { white-space: normal; max-width: none; }
  @supports not (animation-timeline: --sideways) { .densessl .sideways { max-height: none; } }
}
.densessl .notes { font-size: .85em; margin: .4rem 0; max-width: 60rem; }
.densessl .notes p { margin: .15rem 0; }"""
SIDEWAYS = "More columns than fit: scroll the table sideways \u2192"
AFTER = re.compile(r" [(\[]")
PAGE_STYLE = """\
:root { color-scheme: light dark; }
body { font: 16px/1.4 system-ui, sans-serif; margin: 1rem auto; max-width: 75rem; padding: 0 1rem; }
"""


def render(tables: Sequence[Table]) -> str:
    """A page with all tables: one file, no scripts, light and dark."""
    title = escape(sheet(tables[0]).title) if len(tables) == 1 else "Tables"
    body = "\n".join(map(fragment, tables))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>\n{PAGE_STYLE}{STYLE}\n</style>\n</head>\n<body>\n"
        f"{body}\n</body>\n</html>\n"
    )


def fragment(table: Table) -> str:
    """One table in a ``div`` of class ``densessl``, for a page that has ``STYLE``.

    On a narrow screen the facts of a row stand below its label and a difference below its number,
    so that the first metrics are seen at once. A table that is wider still keeps its labels in
    sight while it scrolls, and says that it does: where the browser can tell (by a timeline of the
    scrolling, which there is none without), only then.
    """
    page = sheet(table)
    lines = ['<div class="densessl">', f'<p class="sideways">{SIDEWAYS}</p>']
    about = f'role="region" aria-label="{escape(page.title)}" tabindex="0"'  # keys scroll it, too
    lines += [f'<div class="scroll" {about}>', "<table>"]
    lines.append(f"<caption>{escape(page.title)}</caption>")
    lines += ["<thead>", *_head(page), "</thead>"]
    for section, title in enumerate(page.sections):
        inside = [line for line in page.lines if line.section == section]
        if not inside:
            continue
        lines.append("<tbody>")
        if title:
            width = len(page.numeric)
            lines.append(f'<tr class="section"><th colspan="{width}">{escape(title)}</th></tr>')
        lines += [_line(line, page) for line in inside] + ["</tbody>"]
    lines += ["</table>", "</div>", *_notes(page), "</div>"]
    return "\n".join(lines)


def _head(page: Sheet) -> list[str]:
    lines = []
    if page.groups:
        groups = "".join(
            f'<th class="group" colspan="{width}" scope="colgroup">{escape(title)}</th>'
            for title, width in page.groups
        )
        left = "<th></th>" + '<td class="fact"></td>' * len(page.facts)
        lines.append(f"<tr>{left}{groups}</tr>")
    heads = zip((page.first, *page.facts, *page.heads), page.numeric, strict=True)
    cells = []
    for place, (head, number) in enumerate(heads):
        kind = "fact" * (0 < place <= len(page.facts))
        cells.append(f'<th{_class(number, kind)} scope="col">{escape(head)}</th>')
    return [*lines, f"<tr>{''.join(cells)}</tr>"]


def _class(number: bool, *more: str) -> str:
    names = [*(["number"] if number else []), *filter(None, more)]
    return f' class="{" ".join(names)}"' if names else ""


def _line(line: SheetLine, page: Sheet) -> str:
    facts = list(zip(line.facts, page.facts, page.numeric[1:], strict=False))
    named = [each for each in facts if each[0] not in ("", NOTHING)]
    parts = [f"{head}\u00a0{fact}" if number else fact for fact, head, number in named]
    folded = f'<div class="folded">{escape(" · ".join(parts))}</div>' if parts else ""
    cells = [f'<th scope="row">{_entry(line.label)}{folded}</th>']
    cells += [f"<td{_class(number, 'fact')}>{escape(fact)}</td>" for fact, _, number in facts]
    for entry in line.drawn:
        over = f' colspan="{entry.over}"' if entry.over > 1 else ""
        cells.append(f"<td{_class(True, 'second' * entry.second)}{over}>{_number(entry)}</td>")
    return f'<tr class="{line.kind}">{"".join(cells)}</tr>'


def _entry(entry: Entry) -> str:
    text = escape(entry.text)
    if entry.best:
        text = f"<b>{text}</b>"
    return text + (f"<sup>{entry.marks}</sup>" if entry.marks else "")


def _number(entry: Entry) -> str:
    """A cell's number, and apart from it the difference or the n behind it."""
    at = AFTER.search(entry.text)
    if at is None:
        return _entry(entry)
    behind = _entry(replace(entry, text=entry.text[at.start() :]))
    return f"{_entry(replace(entry, text=entry.text[: at.start()], marks=''))}" + (
        f'<div class="gain">{behind}</div>'
    )


def _notes(page: Sheet) -> list[str]:
    notes = [f"<p>{escape(note)}</p>" for note in page.notes]
    notes += [f"<p><sup>{letter}</sup> {escape(text)}</p>" for letter, text in page.footnotes]
    return ['<div class="notes">', *notes, "</div>"] if notes else []
