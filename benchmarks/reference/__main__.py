"""The pages docs/verbs.md and docs/options.md, of the parsers and of the declarations.

python -m benchmarks.reference docs
"""

import argparse
import ast
import contextlib
import io
import os
import re
import tokenize
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import densessl
from densessl.cli import VERBS
from densessl.core.errors import run_module
from densessl.core.files import write_text
from densessl.core.options import Option
from densessl.d2_transfer import option_rules
from densessl.d2_transfer.classification import config as classification
from densessl.d2_transfer.dense_probes import config as dense_probes
from densessl.d2_transfer.plots.main import KINDS
from densessl.pretrain import options
from densessl.slurm.main import VERBS as SUBMITTED

WITHIN = {"submit": SUBMITTED, "plot": KINDS}  # verbs that have verbs of their own
METHODS = Path(options.__file__).parent / "methods"
VERBS_PAGE = """\
# Verbs

What `densessl VERB --help` prints; `python -m benchmarks.reference docs` writes this page.

Exit codes: 0 done; 2 the input is wrong; 3 the environment lacks something; 75 stopped early with
everything saved, run it again to resume; 130 ended by Ctrl-C; 1 the work itself failed.
"""
OPTIONS_PAGE = """\
# Options

Every option that is declared in the code: its default, what it may be, what it means;
`python -m benchmarks.reference docs` writes this page. They are given as `KEY VALUE` or `KEY=VALUE`
after a command, or in a config file, and a value that cannot be is refused before any work.
`--print-config` shows all of a command as they would be. *Free* options may differ when a run
resumes; any other changes only where `--change` names it.

Classification protocols and dense probes have the options at the end of this page. Protocols that
train in Detectron2 have its options and a few of ours, which `transfer … --print-config` shows.
"""


def help_of(words: list[str]) -> str:
    """What the verb prints when it is asked with ``--help``, 100 columns wide."""
    printed = io.StringIO()
    with (
        mock.patch.dict(os.environ, COLUMNS="100"),
        contextlib.redirect_stdout(printed),
        contextlib.suppress(SystemExit),
    ):
        densessl.main([*words, "--help"])
    return printed.getvalue().rstrip()


def verbs() -> str:
    """The page of all verbs."""
    list_ = [f"| [`{verb}`](#densessl-{verb}) | {line} |" for verb, (_, line) in VERBS.items()]
    parts = [VERBS_PAGE, "\n".join(["| verb | does |", "|---|---|", *list_, ""])]
    for verb in VERBS:
        for words in ([verb], *([verb, each] for each in WITHIN.get(verb, ()))):
            heading = "#" * (len(words) + 1)
            parts.append(
                f"{heading} densessl {' '.join(words)}\n\n```text\n{help_of(words)}\n```\n"
            )
    return "\n".join(parts)


def meanings(path: str | Path) -> dict[str, str]:
    """The comments of a file by the key that they stand beside, else above, in a dictionary."""
    text = Path(path).read_text(encoding="utf-8")
    lines = text.splitlines()
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    found = {}
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.Dict):
            continue
        for key, value in zip(node.keys, node.values, strict=True):
            if not (isinstance(key, ast.Constant) and isinstance(key.value, str)):
                continue
            beside, above = comments.get(value.end_lineno or 0), key.lineno - 1
            while beside is None and above in comments and lines[above - 1].lstrip()[0] == "#":
                above -= 1
            over = " ".join(comments[line] for line in range(above + 1, key.lineno))
            found[key.value] = over if beside is None else beside
    return found


def rules(option: Option) -> str:
    """What an option may be, as a cell of a table."""
    said = [f"one of {', '.join(f'`{each}`' for each in option.choices)}"] if option.choices else []
    said += [f"{sign} {number:g}" for sign, number in option.bounds]
    said += [word for word in option.words if word in ("whole", "rising", "path")]
    return ", ".join([*said, *(["*free*"] if "free" in option.words else [])])


def table(declared: Mapping[str, Option], comments: Mapping[str, str]) -> str:
    """A row for each option."""

    def cell(text: Any) -> str:
        return re.sub(r"(?<!\\)\|", r"\|", str(text))

    rows = ["| option | default | may be | meaning |", "|---|---|---|---|"]
    for name, option in declared.items():
        meaning = comments.get(name, "")
        cells = (f"`{name}`", f"`{option.default!r}`", rules(option), meaning.replace("<", "&lt;"))
        rows.append(f"| {' | '.join(map(cell, cells))} |")
    return "\n".join(rows) + "\n"


def options_page() -> str:
    """The page of all declared options."""
    of_methods = {path: meanings(path) for path in sorted(METHODS.glob("*.py"))}
    named = {
        path: [key for key in of if key in options.DECLARED] for path, of in of_methods.items()
    }
    within = {key for keys in named.values() for key in keys}
    common = {key: each for key, each in options.DECLARED.items() if key not in within}
    parts = [OPTIONS_PAGE, "## Pretraining", table(common, meanings(options.__file__))]
    parts.append("## Methods")
    for path, keys in named.items():
        if keys:
            declared = {key: each for key, each in options.DECLARED.items() if key in keys}
            parts += [f"### {path.stem}", table(declared, of_methods[path])]
    shared = meanings(option_rules.__file__)
    for title, module in (
        ("Classification protocols", classification),
        ("Dense probes", dense_probes),
    ):
        parts += [f"## {title}", table(module.DECLARED, shared | meanings(module.__file__))]
    return "\n\n".join(part.rstrip("\n") for part in parts) + "\n"


def pages() -> dict[str, str]:
    """The text of each page by the name of its file."""
    return {"verbs.md": verbs(), "options.md": options_page()}


def main(argv: list[str]) -> int:
    """Write the pages; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reference", description=__doc__)
    parser.add_argument("folder", type=Path, help="docs")
    folder = parser.parse_args(argv).folder
    for name, text in pages().items():
        write_text(folder / name, text)
    return 0


if __name__ == "__main__":
    run_module(main, "reference")
