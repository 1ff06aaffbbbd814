"""Time and memory of what is done with many images, records and jobs, against their number.

    python -m benchmarks.many                           # up to 1.3 million images: see below
    python -m benchmarks.many --largest 100000          # images; records and jobs likewise
    python -m benchmarks.many --only status reproduce   # measurements whose names hold a word

Each measurement is a process of its own, which ran on a few before, so imports are not counted:
processor time of it and of what it started, time by the clock, and peak memory above what it held
before. The exponent is that of processor time (and of memory) between this size and the one before:
1 is linear. All lies below --folder for the time of the run: 1.3 million images and their shards,
100,000 records, each in a folder.
"""

import argparse
import json
import math
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from . import measured, prepared

ROOT = Path(__file__).parents[2]
FEW = 40
KINDS: dict[str, tuple[dict, Callable[[Path, int], None], tuple[int, ...]]] = {
    "jobs": (measured.JOBS, prepared.jobs, (100, 1_000, 10_000)),
    "records": (measured.RECORDS, prepared.records, (1_000, 10_000, 100_000)),
    "images": (measured.IMAGES, prepared.images, (10_000, 100_000, 1_300_000)),
}


def run(name: str, n: int, few: Path, at: Path) -> dict[str, float]:
    """What one measurement printed; SystemExit where it fails."""
    words = [name, str(FEW), str(n), str(few), str(at)]
    command = [sys.executable, "-m", "benchmarks.many.measured", *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{name} of {n} ended with {done.returncode}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def exponent(now: float, before: float, n: int, m: int) -> str:
    """That of a power law through the values at n and at m."""
    if min(now, before) <= 0:
        return "–"
    return f"{math.log(now / before) / math.log(n / m):.2f}"


def row(name: str, n: int, found: dict, last: tuple[int, dict] | None) -> str:
    """A line of the table."""
    powers = ["–", "–"]
    if last is not None:
        m, earlier = last
        powers = [exponent(found[key], earlier[key], n, m) for key in ("processor", "added")]
    used, clock, added = (found[key] for key in ("processor", "clock", "added"))
    cells = [f"{n:,}", f"{used:.2f}", f"{clock:.2f}", powers[0], f"{added:.0f}", powers[1]]
    return f"| {' | '.join([name, *cells])} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORD")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=KINDS)
    parser.add_argument("--smallest", type=int, default=0, metavar="N")
    parser.add_argument("--largest", type=int, default=1_300_000, metavar="N")
    parser.add_argument("--folder", type=Path, help="on the disk that is to be used")
    args = parser.parse_args()
    print("| measured | n | processor s | clock s | exponent | added MiB | exponent |")
    print("|---|--:|--:|--:|--:|--:|--:|", flush=True)
    with TemporaryDirectory(dir=args.folder) as folder:
        for kind in args.kinds:
            measurements, prepare, sizes = KINDS[kind]
            few, at = Path(folder, "few"), Path(folder, kind)
            prepare(few, FEW)
            last: dict[str, tuple[int, dict]] = {}
            for n in (n for n in sizes if args.smallest <= n <= args.largest):
                prepare(at, n)
                for name in (name for name in measurements if any(w in name for w in args.only)):
                    found = run(name, n, few, at)
                    print(row(name, n, found, last.get(name)), flush=True)
                    last[name] = n, found
            shutil.rmtree(at)


if __name__ == "__main__":
    main()
