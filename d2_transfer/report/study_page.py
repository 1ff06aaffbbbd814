"""The page of ``densessl study``: whether pretraining on these images is worth it, in one file."""

import os
from collections.abc import Sequence
from typing import Any

from densessl.core.progress import duration
from densessl.core.units import many

from ..protocols import OWN_PROBES, PROBES, PROTOCOLS
from ..results import Record
from ..tables.experiments import difference
from ..tables.render import html
from . import (
    collect,
    study_labels,
    study_numbers,
    study_pictures,
    study_steps,
    study_tables,
    study_words,
)
from .main import versions
from .one_file import inlined, made, rendered, safe, write
from .study_data import (
    GIVEN,
    PRETRAINED,
    RANDOM,
    Study,
    StudyProtocol,
    StudyShare,
    listed,
    missing,
    read,
)
from .study_numbers import Compared, Outcome
from .study_pictures import Predicted
from .study_words import Statement

MINIATURE = (
    "These are miniatures: they show that the way works, and say nothing about methods or images."
)
FROZEN = tuple(name for name, each in PROTOCOLS.items() if each.frozen)
FROZEN_SAYS = (
    "The networks stay frozen, so this is what their features are worth as they are; fine-tuning "
    "all of a network may give another answer."
)
DRAWS = {
    "same": "All runs with one share of the labels see the same images: another draw of them may "
    "give another answer, most of all where they are few.",
    "by_trial": "Each trial draws its own images of a share of the labels, the same for all "
    "starts: what that draw changes is in the spread.",
}


def write_study_page(folder: str | os.PathLike, output: str | os.PathLike) -> None:
    """Write the page of the study in ``folder``, finished or not, to one HTML file.

    It needs no network and no other file. Raises InputError for a folder without a study.
    """
    write(output, page(read(folder)))


def page(study: Study) -> str:
    """The page as HTML; every text in it is escaped by the template."""
    arm = study_numbers.leading(study)
    random, given = (study_numbers.against(study, kind) for kind in (RANDOM, GIVEN))
    outcomes = study_numbers.outcomes(random, arm) if arm else []
    plot = study_pictures.draw(study)
    classes = study_tables.classes(study, arm, outcomes)
    values = {
        "title": f"Is pretraining on {_images(study)} worth it?",
        "made": made(),
        "folders": str(study.folder),
        "question": _question(study),
        "answer": study_words.answer(arm, outcomes, given),
        "warnings": _warnings(study),
        "found": _found(study, arm, outcomes, random, given),
        "plot": plot and inlined("image/svg+xml", plot.encode()),
        "compared": study_tables.compared([*random, *given]),
        "classes": classes,
        "pictures": _pictures(study, arm, outcomes),
        "tables": [safe(html.fragment(each)) for each in study_tables.tables(study)],
        "missing": missing(study),
        "left_out": [*map(str, study.facts.get("left_out") or ()), *study.passed_over],
        "settings": _settings(study),
        "next": _next(study, arm),
        "commands": _commands(study),
    }
    shown = {
        "Comparisons": "compared",
        "Pictures": "pictures",
        "Classes": "classes",
        "All numbers": "tables",
        "Not in it": "left_out",
        "Settings": "settings",
        "Commands": "commands",
    }
    sections = [("Answer", "answer")]
    sections += [(name, key) for name, key in shown.items() if values[key]]
    return rendered("study_page.html.j2", **values, sections=sections)


def _images(study: Study) -> str:
    count = study.facts.get("n_images")
    return f"these {count:,} images" if isinstance(count, int) else "these images"


def _question(study: Study) -> str:
    task = str(study.facts.get("task") or "")
    tasks = {"semseg": "semantic segmentation", "det": "detection", "mask": "instance segmentation"}
    tasks["cls"] = "classification"
    steps = [
        f"{arm.name} ({', '.join(own)})" if (own := _facts(arm.facts)) else arm.name
        for arm in study.of(PRETRAINED)
    ]
    lines = [f"The task is {tasks.get(task, task or 'not named')}."]
    lines += [f"Pretrained: {listed(steps)}."] if steps else []
    starts = [arm.name for arm in study.of(RANDOM) if arm.name in study_words.STARTS]
    lines += [f"{name} is {study_words.STARTS[name]}." for name in starts]
    return " ".join([*lines, _measured(study.protocols[0])])


def _measured(protocol: StudyProtocol) -> str:
    """How every start is measured, and what the metric is."""
    name, known = study_words.name(protocol.metric), PROTOCOLS.get(protocol.name)
    title = known.title if known else ""
    if protocol.name == "custom_semseg":
        title = PROBES.get(OWN_PROBES.get(protocol.variant, ""), title)
    about = study_words.METRICS.get(name)
    lines = [f"Measured by: {title}."] if title else []
    lines += [f"{name} is the {about}; in per cent, more is better."] if about else []
    return " ".join(lines)


def _facts(facts: dict[str, Any]) -> list[str]:
    """Of how many pretrainings an arm is, and what each took."""
    count, steps, seconds = (facts.get(key) for key in ("pretrainings", "steps", "seconds"))
    each = [f"{steps:,} steps"] if steps else []
    each += [duration(seconds)] if seconds else []
    found = [many(count, "pretraining")] if count else []
    return [*found, f"{' and '.join(each)} each"] if each else found


def _warnings(study: Study) -> list[str]:
    trials = [record for found in study.records.values() for record in found]
    lines = [MINIATURE] if any(record.mini for record in trials) else []
    for place in range(len(study.protocols)):
        for share in study.shares:
            own = [r for arm in study.arms for r in study.trials(arm.name, share, place)]
            if different := _different(study, share, own):
                lines.append(
                    f"With {share.text} of the labels not all was measured under one config, so "
                    f"that the numbers do not compare: {different}"
                )
    return lines


def _different(study: Study, share: StudyShare, trials: Sequence[Record]) -> str:
    """What differs between the configs of trials; another draw of the labels may."""
    groups: dict[int, list[Record]] = {}
    for trial in trials:
        draw = trial.seed if study.draws(share) else 0
        groups.setdefault(draw, []).append(trial)
    return next(filter(None, map(difference, groups.values())), "")


def _found(
    study: Study,
    arm: str | None,
    outcomes: Sequence[Outcome],
    random: Sequence[Compared],
    given: Sequence[Compared],
) -> list[tuple[str, list[Statement]]]:
    """What was found, as titles and findings."""
    metric = study.protocols[0].metric
    own = [each for each in given if each.arm == arm]
    parts = [
        ("Against starting at random", _random(study, arm, outcomes, random)),
        ("Against given weights", [study_words.difference(each, metric) for each in own]),
        ("Labels saved", _saved(study, arm, outcomes)),
        ("What more would change", _more(study, arm, outcomes)),
        ("How sure", _sure(study, [*random, *given]) if outcomes else []),
    ]
    return [(title, statements) for title, statements in parts if statements]


def _random(
    study: Study, arm: str | None, outcomes: Sequence[Outcome], random: Sequence[Compared]
) -> list[Statement]:
    """Of the leading method each share, of the others what follows."""
    statements = [study_words.by_how_much(each, study.protocols[0].metric) for each in outcomes]
    for other in study.of(PRETRAINED):
        own = study_numbers.outcomes(random, other.name)
        if own and other.name != arm:
            statements.append(Statement("", study_words.of_random(other.name, own).long))
    return statements


def _sure(study: Study, compared: Sequence[Compared]) -> list[Statement]:
    tests = max((each.tests for each in compared), default=0)
    by_holm = (
        f", p corrected by Holm's method for the {tests} comparisons with one start"
        if tests > 1
        else ""
    )
    pairs = any(each.found.pairs for each in compared)
    how = "a paired t test where both learnt from the same labels, else " if pairs else ""
    text = (
        "Two pretrainings differ by their seeds, so a pretraining counts once, however many trials "
        f"it has; of a random start each network counts. Tested by {how}Welch's t test of their "
        f"means (where one stands alone, Student's){by_holm}. A difference is taken as one where p "
        "is at most 0.05; intervals are of each comparison by itself."
    )
    draw = DRAWS.get(str(study.facts.get("label_draw")))
    frozen = FROZEN_SAYS if study.protocols[0].name in FROZEN else ""
    return [Statement("", each) for each in (text, draw, frozen) if each]


def _saved(study: Study, arm: str | None, outcomes: Sequence[Outcome]) -> list[Statement]:
    if not arm or not outcomes:
        return []
    control = study_numbers.better_random(study, outcomes[-1].share)
    found = study_labels.saved(study, arm, control) if control else None
    if found is None:
        return [Statement("Not within what was measured:", "that takes two shares of the labels.")]
    return [study_words.labels_saved(found, study.protocols[0].metric)]


def _more(study: Study, arm: str | None, outcomes: Sequence[Outcome]) -> list[Statement]:
    """What more labels, steps or pretrainings would change, from what was measured alone."""
    if not arm or not outcomes:
        return []
    metric, statements = study.protocols[0].metric, []
    last = outcomes[-1]
    compared = {arm, last.best.other, *(each.name for each in study.of(GIVEN))}
    measured = [study_numbers.slope(study, each) for each in study.arms if each.name in compared]
    if slopes := [slope for slope in measured if slope and slope.high == last.share]:
        slopes = [slope for slope in slopes if slope.low == slopes[0].low]
        statements.append(study_words.more_labels(slopes, metric))
    if end := study_steps.end(study.runs.get(arm, [])):
        statements.append(study_words.more_steps(study.arm(arm), end))
    seen = [(e.best, found) for e in outcomes if (found := study_numbers.sight(e.best))]
    if seen:
        statements.append(study_words.more_runs(seen, metric))
    return statements


def _pictures(study: Study, arm: str | None, outcomes: Sequence[Outcome]) -> Predicted | None:
    """Of the better random start, and of the pretrained one."""
    if not arm or not outcomes:
        return None
    return study_pictures.find(study, (outcomes[-1].best.other, arm))


def _settings(study: Study) -> list[tuple[str, str]]:
    facts = study.facts
    budget = facts.get("budget_s")
    rows = [
        ("task", facts.get("task")),
        ("images", facts.get("images")),
        ("training", facts.get("train")),
        ("validation", facts.get("val")),
        ("budget", f"{budget / 3600:g} h" if isinstance(budget, int | float) else None),
        ("labels", "; ".join(f"{s.text}: {s.images} images" for s in study.shares)),
        (
            "measured by",
            "; ".join(
                f"{p.name}{f', variant {p.variant}' if p.variant else ''} ({p.metric})"
                for p in study.protocols
            ),
        ),
    ]
    for arm in study.arms:
        about = [str(arm.facts[key]) for key in ("config", "weights") if arm.facts.get(key)]
        start = study_words.STARTS.get(arm.name, "") if arm.kind == RANDOM else ""
        rows.append((arm.name, "; ".join([*filter(None, [start]), *about, *_facts(arm.facts)])))
    trials = [record for found in study.records.values() for record in found]
    return [(name, str(value)) for name, value in rows if value] + versions(trials)


def _next(study: Study, arm: str | None) -> list[str]:
    """The commands that take the best pretrained network further."""
    if arm is None:
        return []
    share = study.measured(arm)[-1]
    metric = study.protocols[0].metric
    best = max(
        (r for r in study.trials(arm, share) if r.metrics.get(metric) == r.metrics.get(metric)),
        key=lambda record: record.metrics[metric],
    )
    return [f"densessl convert {best.weights['path']} -o {arm}.pth"]


def _commands(study: Study) -> list[str]:
    command = study.facts.get("command")
    return [str(command)] if command else collect.find([study.folder]).as_typed()
