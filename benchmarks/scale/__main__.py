"""The page docs/scale.md: what a run on 8, 64 and 512 GPUs sends, saves, reads and loses.

python -m benchmarks.scale -o docs/scale.md
"""

import argparse
import sys
from pathlib import Path

from densessl.core.errors import run_module
from densessl.core.files import write_text

from .document import render


def main(argv: list[str]) -> int:
    """Write the page, or print it; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scale", description=__doc__)
    parser.add_argument("-o", "--output", type=Path, help="default: the screen")
    args = parser.parse_args(argv)
    text = render()
    if args.output is None:
        sys.stdout.write(text)
    else:
        write_text(args.output, text)
    return 0


if __name__ == "__main__":
    run_module(main, "scale")
