"""``densessl report DIR``: one page that a stranger understands, in one file."""

import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from densessl.core import log
from densessl.core.errors import InputError
from densessl.core.parser import Parser
from densessl.core.units import many

from .. import results
from ..tables import from_records, per_class
from ..tables.render import html
from . import curves, health
from .collect import Collected, Pretraining, find
from .one_file import inlined, made, rendered, safe, write

STYLES = {health.GOOD: "good", health.LOOK: "look", health.BAD: "bad"}
TYPES = {".png": "image/png", ".jpg": "image/jpeg"}

logger = logging.getLogger("densessl")


def main(argv: list[str]) -> int:
    """Write one self-contained page: results, curves, signs of collapse, pictures, commands.

    It takes what lies in and below the folders: trial records, pretrainings, pictures and graphs of
    jobs. The page needs no network and no other file.
    """
    parser = Parser(prog="densessl report", description=main.__doc__)
    parser.add_argument("folders", nargs="+", metavar="DIR", help="with runs in or below it")
    parser.add_argument("-o", "--output", default="report.html", metavar="FILE")
    parser.add_argument("--title", metavar="TEXT", help="default: the folder's name")
    parser.add_argument("--baseline", metavar="METHOD", help="show the differences from this one")
    args = parser.parse_args(argv)
    folders = [Path(each) for each in args.folders]
    if Path(args.output).suffix.lower() not in (".html", ".htm"):
        raise InputError(f"-o {args.output}: a report is HTML; allowed: FILE.html")
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder")
    log.setup()
    records = results.collect(folders, skip=lambda error: logger.warning("left out: %s", error))
    found = find(folders)
    if not records and not found.pretrainings:
        names = ", ".join(map(str, folders))
        raise InputError(
            f"nothing to report in {names}: no trial_<k>/result.json of 'densessl transfer' and "
            "no metrics.jsonl of 'densessl pretrain'"
        )
    title = args.title or f"DenseSSL: {', '.join(folder.resolve().name for folder in folders)}"
    text = page(title, folders, records, found, args.baseline)
    write(args.output, text)
    return 0


def page(
    title: str,
    folders: Sequence[Path],
    records: Sequence[results.Record],
    found: Collected,
    baseline: str | None = None,
) -> str:
    """The page as HTML; every text in it is escaped by the template."""
    tables = from_records.build(records, baseline=baseline) if records else []
    by_class = map(per_class.turned, per_class.build(records, baseline) if records else [])
    runs = [_run(run) for run in found.pretrainings]
    values = {
        "title": title,
        "made": made(),
        "folders": ", ".join(map(str, folders)),
        "summary": summary(records, found, runs),
        "warnings": _warnings(records, runs),
        "tables": [safe(html.fragment(table)) for table in tables],
        "by_class": [(table.title, safe(html.fragment(table))) for table in by_class],
        "runs": runs,
        "pictures": [_picture(path, folders) for path in found.pictures],
        "left_out": found.left_out,
        "versions": versions(records),
        "commands": found.as_typed(),
    }
    shown = {
        "Results": "tables",
        "Pretraining": "runs",
        "Pictures": "pictures",
        "Environment": "versions",
        "Commands": "commands",
    }
    sections = [("Summary", "summary")]
    sections += [(name, name.lower()) for name, key in shown.items() if values[key]]
    return rendered("page.html.j2", **values, sections=sections)


def summary(
    records: Sequence[results.Record], found: Collected, runs: Sequence[dict[str, Any]]
) -> list[str]:
    """What there is, in a few lines."""
    lines = []
    for run in runs:
        counts = Counter(verdict["state"] for verdict in run["verdicts"])
        signs = ", ".join(f"{counts[state]} {state}" for state in STYLES if counts[state])
        lines.append(f"Pretraining {run['title']}: {run['state']}; signs: {signs or 'none logged'}")
    for name, trials in _by_protocol(records).items():
        lines.append(f"{name}: {many(trials.total(), 'trial')} of {', '.join(sorted(trials))}")
    if found.pictures:
        lines.append(many(len(found.pictures), "picture"))
    return lines


def _by_protocol(records: Sequence[results.Record]) -> dict[str, Counter[str]]:
    """The trials of each method, by the protocol's name as a reader sees it."""
    found: dict[str, Counter[str]] = {}
    for record in records:
        name = record.protocol + (f", {record.variant}" if record.variant else "")
        name += " in miniature" if record.mini else ""
        found.setdefault(name, Counter())[record.method] += 1
    return found


def _warnings(records: Sequence[results.Record], runs: Sequence[dict[str, Any]]) -> list[str]:
    warnings = []
    if any(record.mini for record in records):
        warnings.append(
            "Some results are miniatures: they show that the way works, compare with nothing "
            "published, and say nothing about the methods."
        )
    for name, trials in _by_protocol(records).items():
        if len(trials) == 1:
            warnings.append(
                f"{name}: {next(iter(trials))} stands alone. Without a random start and other "
                "weights in the same protocol, its numbers do not tell what it is worth."
            )
        elif max(trials.values()) == 1:
            warnings.append(
                f"{name}: one trial of each. Without a spread, no difference can be told from "
                "chance."
            )
    for run in runs:
        for verdict in run["verdicts"]:
            if verdict["noticed"]:
                warnings.append(f"{run['title']}: {verdict['noticed']}; see below.")
            elif verdict["state"] == health.BAD:
                warnings.append(f"{run['title']}: {verdict['title']} is bad; see below.")
    return warnings


def _run(run: Pretraining) -> dict[str, Any]:
    last = run.last
    finished = (run.folder / "backbone_final.pth").is_file()
    about = [
        f"{run.method} with {run.option('BACKBONE.NAME', '?')} on {run.option('DATA.PATH', '?')}",
        f"{run.step} steps of {run.option('SOLVER.BATCH_SIZE', '?')} images",
    ]
    if "seconds" in last:
        about.append(f"{last['seconds']:.0f} s of training")
    about += [_online(run, measure) for measure in curves.ONLINE if run.series(measure.key)[0]]
    if run.unreadable_lines:
        about.append(f"{run.unreadable_lines} lines of its metrics.jsonl cannot be read")
    return {
        "title": run.folder.name,
        "state": f"finished after {run.step} steps"
        if finished
        else f"not finished, at step {run.step}",
        "about": "; ".join(about),
        "verdicts": [_verdict(each) for each in health.judge(run)],
        "curves": [
            {"title": title, "source": inlined("image/svg+xml", image.encode())}
            for title, image in curves.draw(run)
        ],
    }


def _online(run: Pretraining, measure: curves.Online) -> str:
    """The last value of an online measure, and of its controls."""
    steps, values = run.series(measure.key)
    text = f"{measure.title} {values[-1]:.1f} % at step {steps[-1]}"
    controls = [f"{name} {value:.1f} %" for name, value in curves.controls(run, measure.key)]
    return text + (f" ({', '.join(controls)})" if controls else "")


def _verdict(verdict: health.Verdict) -> dict[str, str]:
    band = verdict.band
    normal = "" if band is None else f"{band[0]:.3g} to {band[1]:.3g}"
    return {
        "title": verdict.indicator.title,
        "why": verdict.indicator.why,
        "value": f"{verdict.value:.3g}",
        "band": "0" if band == (0.0, 0.0) else normal,
        "state": verdict.state,
        "noticed": verdict.noticed,
        "style": STYLES[verdict.state],
    }


def _picture(path: Path, folders: Sequence[Path]) -> dict[str, str]:
    inside = next(folder for folder in folders if path.is_relative_to(folder))
    name = str(path.relative_to(inside).with_suffix(""))
    return {"name": name, "source": inlined(TYPES[path.suffix.lower()], path.read_bytes())}


def versions(records: Sequence[results.Record]) -> list[tuple[str, str]]:
    """Of all records; several values where trials ran with different software."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.versions.items():
            values.setdefault(name, {})[str(value)] = None
    return [(name, ", ".join(each)) for name, each in values.items()]
