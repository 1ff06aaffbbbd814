"""Jobs of a pipeline that take no time: ``python -m quick WHAT OUTPUT [INPUT …]``.

``count`` saves its place now and then and resumes from it, as a pretraining does; ``sum`` reads
what others left. What they write depends on nothing but their input.
"""

import hashlib
import os
import sys
import time
from pathlib import Path

STEPS = 12


def digest(*parts: bytes) -> str:
    return hashlib.sha256(b"".join(parts)).hexdigest()


def replace(file: Path, text: str) -> None:
    new = file.with_name(f"{file.name}.new")
    new.write_text(text)
    os.replace(new, file)


def count(output: Path, inputs: list[bytes]) -> None:
    saved = output.with_suffix(".saved")
    step, value = saved.read_text().split() if saved.exists() else ("0", digest(*inputs))
    for now in range(int(step) + 1, STEPS + 1):
        value = digest(value.encode())
        time.sleep(0.005)
        if now % 3 == 0:
            replace(saved, f"{now} {value}")
    replace(output, value)


def wait(output: Path, inputs: list[bytes]) -> None:
    output.with_suffix(".begun").touch()
    while not output.with_suffix(".go").exists():
        time.sleep(0.02)
    replace(output, digest(*inputs))


if __name__ == "__main__":
    what, output = sys.argv[1], Path(sys.argv[2])
    inputs = [Path(each).read_bytes() for each in sys.argv[3:]]
    {
        "count": count,
        "wait": wait,
        "sum": lambda output, inputs: replace(output, digest(*inputs)),
    }[what](output, inputs)
