"""docs/evidence.md, made of what was measured: every number and every comparing sentence."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from densessl.d2_transfer.compare.words import points
from densessl.d2_transfer.tables.t_test import p_value

from . import given_away
from .contrasts import (
    Contrast,
    corrected,
    of_difference,
    of_groups,
    of_methods,
    prediction_interval,
)
from .contrasts import between as difference
from .measured import (
    CONTROLS,
    DENSE,
    IMAGE_LEVEL,
    METHODS,
    NOT_MEASURED,
    OUTSIDE,
    PROBES,
    TITLES,
    Measured,
    of_older_sign,
    pretrainings,
    signs,
)

PAGE = Path(__file__).with_name("page.md")
OLDER_SIGN = Path(__file__).with_name("older_sign.md")
YES, NO, UNSEEN = "yes", "no", "not to be seen at this size"
OPTIONS_ALONE = ("DATA.WORKERS", "CHECKPOINT.KEEP")  # change no number
Answers = Mapping[tuple[str, str], Contrast]  # by data set and probe


def render(sets: Mapping[str, Measured], folder: Path) -> str:
    """The page. ``sets``: by name (``scenes``, ``photos``), those that have any record; each was
    measured in the folder of its name below ``folder``."""
    answers = _answers(sets)
    parts = [
        _of_set(name, sets[name], answers, folder / name)
        if name in sets
        else f"## {title}\n\n{NOT_MEASURED[name]}"
        for name, title in TITLES.items()
    ]
    return Template(PAGE.read_text("utf-8")).substitute(
        in_short=_in_short(sets, answers), recipe=_recipe(sets), sets="\n\n".join(parts)
    )


def _answers(sets: Mapping[str, Measured]) -> Answers:
    """Dense less image-level, by data set and probe, corrected for their number."""
    found = {}
    for name, measured in sets.items():
        for probe in measured.probes:
            sides = measured.of(probe, IMAGE_LEVEL), measured.of(probe, DENSE)
            if (contrast := of_methods(*sides)) is not None:
                found[name, probe] = contrast
    return corrected(found)


def answer(contrast: Contrast) -> str:
    """Whether dense methods are above image-level ones."""
    if not contrast.seen:
        return UNSEEN
    return YES if contrast.mean > 0 else NO


def _in_short(sets: Mapping[str, Measured], answers: Answers) -> str:
    lines = [
        "Are the dense methods above the image-level ones? (difference of the groups' mIoU, 95 % "
        f"interval, p after Holm's correction for these {len(answers)} answers)"
    ]
    heads = ("data", "measure", "dense − image-level", "95 % interval", "p", "answer")
    rows = [
        (TITLES[name], PROBES[probe], points(each.mean, "+"), _interval(each), _p(each.holm))
        + (f"**{answer(each)}**",)
        for (name, probe), each in answers.items()
    ]
    lines += ["", *_table(heads, rows, left=2)]
    for name, measured in sets.items():
        for probe in measured.probes:
            if told := _told_apart(measured, probe):
                lines += ["", f"*{TITLES[name]}, {PROBES[probe]}*: {told}"]
    return "\n".join(lines)


def _told_apart(measured: Measured, probe: str) -> str:
    """Which methods are above or below which random start."""
    sides: dict[str, list[str]] = {}
    for method, found in _by_control(measured, probe).items():
        sides.setdefault(_place(found), []).append(method)
    told = [f"{place}: {', '.join(methods)}" for place, methods in sorted(sides.items())]
    return "; ".join(told) + "." if told else ""


def _place(found: Mapping[str, Contrast]) -> str:
    """Where a method is among the random starts, in words."""
    places = {
        "above": [name for name, each in found.items() if each.seen and each.mean > 0],
        "below": [name for name, each in found.items() if each.seen and each.mean < 0],
        "not distinguishable from": [name for name, each in found.items() if not each.seen],
    }
    return ", ".join(f"{word} {' and '.join(names)}" for word, names in places.items() if names)


def _by_control(measured: Measured, probe: str) -> dict[str, dict[str, Contrast]]:
    """Of each method the difference from each control, corrected for all of a measure."""
    controls = measured.of(probe, CONTROLS)
    methods = measured.of(probe, (*METHODS, *OUTSIDE))
    found = {
        (method, control): of_difference(difference(of, values))
        for method, values in methods.items()
        for control, of in controls.items()
    }
    after = corrected(found)
    return {method: {control: after[method, control] for control in controls} for method in methods}


def _recipe(sets: Mapping[str, Measured]) -> str:
    """The options that all rows share, and those that a row has beside them."""
    spec = next(iter(sets.values())).spec
    rows = [row for row in spec.rows if row.pretrain]
    common = {
        key: value
        for key, value in rows[0].options.items()
        if key not in OPTIONS_ALONE and all(row.options.get(key) == value for row in rows)
    }
    words = ", ".join(f"`{key} {value}`" for key, value in common.items())
    lines = [f"Common to all: {words}.", ""]
    own = [
        (row.method, f"`{row.pretrain}`", _own(row.options, rows[0].options) or "–") for row in rows
    ]
    lines += _table(("method", "config", "beside the common recipe"), own, left=3)
    return "\n".join(lines)


def _own(options: Mapping, common: Mapping) -> str:
    return ", ".join(f"`{key} {value}`" for key, value in options.items() if key not in common)


def _of_set(name: str, measured: Measured, answers: Answers, folder: Path) -> str:
    parts = [f"## {TITLES[name]}"]
    if measured.missing:
        some = "; ".join(measured.missing[:8]) + ("; …" if len(measured.missing) > 8 else "")
        parts.append(
            f"**Not complete**: {len(measured.missing)} measurements are missing ({some}). The "
            "numbers below are of those that are there."
        )
    if measured.seconds:
        hours = sum(measured.seconds.values()) / 3600
        spent = ", ".join(f"{kind} {each / 60:.0f}" for kind, each in measured.seconds.items())
        parts.append(
            f"The jobs took {hours:.1f} hours of wall-clock time in all, two side by side of one "
            f"thread each (minutes: {spent}); other work on the machine is in it."
        )
    if measured.shortcuts:
        parts.append("### Does the question make sense here?\n\n" + given_away.sentences(measured))
    if runs := pretrainings(measured.spec, folder):
        parts.append("### Signs of life\n\n" + _signs(runs))
    parts.append("### mIoU\n\n" + _numbers(measured))
    parts.append("### Against the random starts\n\n" + _controls(measured))
    parts.append("### Dense against image-level\n\n" + _groups(name, measured, answers))
    if outside := _outside(measured):
        parts.append("### The outside check: lightly\n\n" + outside)
    return "\n\n".join(parts)


def _signs(runs: Mapping[str, Sequence]) -> str:
    heads = ("method", "accuracy of images", "of positions", "warned of collapse")
    lines = [
        *_table(heads, signs(runs), left=1),
        "",
        "At the end of pretraining, in per cent: how often the other view of an image is the most "
        "similar one of its batch, and the match of a position more similar than a position of "
        "another image; in brackets what a guess would have. A run is warned where its spread "
        "falls or one of the two stays at chance "
        "([what the log shows](methods.md#what-the-log-shows)).",
    ]
    if of_older_sign(runs):
        lines += ["", OLDER_SIGN.read_text("utf-8").rstrip()]
    return "\n".join(lines)


def _numbers(measured: Measured) -> str:
    """Mean ± standard deviation between pretrainings (of controls: between networks), and n."""
    there = [row.method for row in measured.spec.rows]
    rows = []
    for method in there:
        cells = [_cell(measured.values[probe].get(method, [])) for probe in measured.probes]
        counts = {len(measured.values[probe].get(method, [])) for probe in measured.probes} - {0}
        if counts:
            rows.append((method, *cells, " / ".join(map(str, sorted(counts)))))
    heads = ("method", *(PROBES[probe] for probe in measured.probes), "n")
    return "\n".join(_table(heads, rows, left=1))


def _cell(values: Sequence[float]) -> str:
    if not values:
        return "–"
    spread = f" ± {points(statistics.stdev(values))}" if len(values) > 1 else ""
    return points(statistics.fmean(values)) + spread


def _controls(measured: Measured) -> str:
    heads = ("measure", "method", "control", "difference", "95 % interval", "p", "")
    rows = [
        (PROBES[probe], method, control, points(each.mean, "+"), _interval(each), _p(each.holm))
        + ("" if each.seen else "not distinguishable",)
        for probe in measured.probes
        for method, found in _by_control(measured, probe).items()
        for control, each in found.items()
    ]
    lines = [
        *_table(heads, rows, left=3),
        "",
        "Welch's t test, the pretraining as the unit; of a control each network. p by Holm's "
        "correction for all comparisons of a measure; intervals are of each comparison alone.",
    ]
    return "\n".join(lines)


def _groups(name: str, measured: Measured, answers: Answers) -> str:
    lines = []
    for probe in measured.probes:
        if (each := answers.get((name, probe))) is None:
            continue
        sides = measured.of(probe, IMAGE_LEVEL), measured.of(probe, DENSE)
        images, dense = (sum(map(len, side.values())) for side in sides)
        where = "above" if each.mean > 0 else "below"
        told = (
            f"- **{PROBES[probe]}: {answer(each)}.** The {len(sides[1])} dense methods are "
            f"{points(abs(each.mean))} points {where} the {len(sides[0])} image-level ones (95 % "
            f"interval {_interval(each)}, {_p_words(each.p)}, after the correction "
            f"{_p_words(each.holm)}; {dense} against {images} pretrainings)."
        )
        if each.detectable is not None and not each.seen:
            told += f" A difference below {points(each.detectable)} cannot be seen by so many."
        if (groups := of_groups(*sides)) is not None and groups.interval:
            told += (
                f" With the method as the unit the interval is {_interval(groups)} "
                f"({_p_words(groups.p)})."
            )
        lines.append(told)
    return "\n".join(lines)


def _outside(measured: Measured) -> str:
    rows = []
    for outside, own in OUTSIDE.items():
        for probe in measured.probes:
            both = measured.of(probe, (own, outside))
            if len(both) < 2:
                continue
            each = of_difference(difference(both[own], both[outside]))
            expected = prediction_interval(both[own])
            inside = "–"
            if expected:
                count = sum(expected[0] <= value <= expected[1] for value in both[outside])
                inside = f"{count} of {len(both[outside])}"
            rows.append(((outside, probe), each, inside))
    after = corrected({key: each for key, each, _ in rows})
    if not rows:
        return ""
    heads = ("method", "measure", "lightly − ours", "95 % interval", "p", "within our spread", "")
    cells = [
        (key[0], PROBES[key[1]], points(each.mean, "+"), _interval(each), _p(after[key].holm))
        + (inside, "**differs**" if after[key].seen else "")
        for key, each, inside in rows
    ]
    differ = [f"{key[0]}, {PROBES[key[1]]}" for key, *_ in rows if after[key].seen]
    verdict = (
        f"These differ from ours by more than chance explains: {'; '.join(differ)}."
        if differ
        else "None differs from ours by more than chance explains."
    )
    return "\n".join(
        [
            *_table(heads, cells, left=2),
            "",
            f"{verdict} p by Holm's correction for these {len(rows)} comparisons. *Within our "
            "spread*: how many of lightly's pretrainings lie where one more of ours is expected in "
            "95 of 100 cases (mean ± t · s · √(1 + 1/n)).",
        ]
    )


def _interval(each: Contrast) -> str:
    if each.interval is None:
        return "–"
    low, high = each.interval
    return f"{points(low, '+')} to {points(high, '+')}"


def _p(p: float | None) -> str:
    return "–" if p is None else p_value(p).removeprefix("p = ").removeprefix("p ")


def _p_words(p: float | None) -> str:
    return "not tested" if p is None else p_value(p)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> list[str]:
    """Markdown; the first ``left`` columns are of text."""
    rule = [":--" if place < left else "--:" for place in range(len(heads))]
    return ["| " + " | ".join(row) + " |" for row in (heads, rule, *rows)]
