"""A comparison as text for a terminal, as Markdown, and as JSON."""

import json
import textwrap
from dataclasses import asdict

from ..tables.experiments import counted, span
from ..tables.pretrainings import seeds_of
from ..tables.render.markdown import escape
from ..tables.t_test import LEVEL, Difference, mean_of, p_value
from .comparison import Comparison, Side
from .words import points, remarks, verdict

HEADS = ("metric", "A", "B", "B − A", "95 % interval", "p", "effect", "n")
WIDTH = 88  # of the words on a terminal


def terminal(comparison: Comparison) -> str:
    """Aligned columns, then what they say."""
    rows = [HEADS, *(_cells(*each) for each in comparison.differences.items())]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [_title(comparison), *_sides(comparison), ""]
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]).rstrip())
    for text in ("", verdict(comparison), "", *remarks(comparison)):
        lines += textwrap.wrap(text, WIDTH, break_on_hyphens=False) or [""]
    return "\n".join(lines).rstrip() + "\n"


def markdown(comparison: Comparison) -> str:
    """GitHub's Markdown."""
    lines = [f"### {escape(_title(comparison))}", ""]
    lines += [f"{escape(side)}  " for side in _sides(comparison)]
    lines += ["", _line(HEADS), _line([":--", *["--:"] * (len(HEADS) - 1)])]
    for each in comparison.differences.items():
        lines.append(_line([escape(cell) for cell in _cells(*each)]))
    lines += ["", escape(verdict(comparison)), ""]
    lines += [f"{escape(remark)}  " for remark in remarks(comparison)]
    return "\n".join(lines).rstrip() + "\n"


def as_json(comparison: Comparison) -> str:
    """Everything, unrounded; what could not be tested is null."""
    values = {
        "protocol": comparison.protocol,
        "variant": comparison.variant,
        "mini": comparison.mini,
        "a": _side(comparison.a),
        "b": _side(comparison.b),
        "main_metric": comparison.main,
        "level": LEVEL,
        "corrected_for_several_metrics": False,
        "metrics": {name: _numbers(each) for name, each in comparison.differences.items()},
        "left_out": {name: text for name, text in comparison.left_out.items() if text},
        "verdict": verdict(comparison),
    }
    return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


FORMATS = {"terminal": terminal, "md": markdown, "json": as_json}


def _title(comparison: Comparison) -> str:
    variant = f", variant {comparison.variant}" if comparison.variant else ""
    return f"{comparison.protocol}{variant}{' (miniature)' if comparison.mini else ''}"


def _sides(comparison: Comparison) -> list[str]:
    texts = []
    for letter, side in (("A", comparison.a), ("B", comparison.b)):
        counts = _of("trial", len(side.trials), sorted({trial.seed for trial in side.trials}))
        if side.pretrainings > 1 and not side.control:
            counts = f"{_of('pretraining', side.pretrainings, seeds_of(side.trials))}; {counts}"
        texts.append(f"{letter}: {side.name} ({side.folder}; {counts})")
    return texts


def _of(what: str, count: int, seeds: list[int]) -> str:
    """``5 trials, seeds 1–5``."""
    s = "s" if count > 1 else ""
    return f"{count} {what}{s}, seed{'s' if len(seeds) > 1 else ''} {span(seeds)}"


def _counts(found: Difference) -> str:
    """``5`` pairs, ``5, 4`` trials, or ``3 × 5, 3 × 5`` fine-tunings."""
    if found.fine_tunings:
        return ", ".join(map(counted, found.fine_tunings))
    return str(found.pairs or f"{len(found.a)}, {len(found.b)}")


def _cells(metric: str, found: Difference) -> tuple[str, ...]:
    kind = "d_z" if found.pairs else "d"
    return (
        metric,
        points(mean_of(found.a)),
        points(mean_of(found.b)),
        points(found.mean, "+"),
        " to ".join(points(end, "+") for end in found.interval or ()) or "–",
        "–" if found.p is None else p_value(found.p).removeprefix("p = ").removeprefix("p "),
        "–" if found.effect is None else f"{kind} {points(found.effect, '+')}",
        _counts(found),
    )


def _line(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _side(side: Side) -> dict:
    first = side.trials[0]
    return {
        "name": side.name,
        "folder": side.folder,
        "method": first.method,
        "weights_sha256": first.weights["sha256"],
        "control": side.control,
        "pretrainings": side.pretrainings,
        "pretraining_seeds": seeds_of(side.trials),
        "seeds": [trial.seed for trial in side.trials],
    }


def _numbers(found: Difference) -> dict:
    return {
        "unit": "pretraining" if found.fine_tunings else "trial",
        **asdict(found),
        "mean_a": mean_of(found.a),
        "mean_b": mean_of(found.b),
        "effect_is": "d_z" if found.pairs else "d",
    }
