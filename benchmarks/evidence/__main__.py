"""The page of ``make evidence``, of the records that are there.

python -m benchmarks.evidence evidence -o docs/evidence.md
"""

import argparse
import sys
from pathlib import Path

from densessl.core.errors import InputError, run_module
from densessl.core.files import write_text

from .document import render
from .measured import TITLES, read


def main(argv: list[str]) -> int:
    """Write the page, or print it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__)
    parser.add_argument(
        "folder", type=Path, help="holds scenes/ and photos/, as make evidence does"
    )
    parser.add_argument("-o", "--output", type=Path, help="default: the screen")
    args = parser.parse_args(argv)
    sets = {name: read(f"evidence/{name}", args.folder / name) for name in TITLES}
    sets = {name: each for name, each in sets.items() if any(map(_any, each.values.values()))}
    if not sets:
        raise InputError(f"{args.folder} has no records in scenes/ or photos/; make evidence")
    text = render(sets, args.folder)
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
    for name, each in sets.items():
        for one in each.missing:
            print(f"not measured yet: {name}: {one}", file=sys.stderr)
    return 0


def _any(values: dict[str, list[float]]) -> bool:
    return any(values.values())


if __name__ == "__main__":
    run_module(main, "evidence")
