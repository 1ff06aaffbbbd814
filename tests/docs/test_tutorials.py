"""The tutorials' frames, one after the other as a reader would run them, in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import densessl

DOCS = Path(densessl.__file__).parents[1] / "docs"
FRAME = re.compile(r"^```(sh|python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TUTORIALS = [page for page in sorted(DOCS.glob("tutorial_*.md")) if FRAME.search(page.read_text())]


def shows(frame: str, printed: str) -> bool:
    """Whether the lines of a frame were printed, in their order; … stands for anything."""
    lines = ["[^\\n]*".join(map(re.escape, line.split("…"))) for line in frame.splitlines()]
    return re.search(r"[^\S\n]*\n(?:.*\n)*?".join(lines), printed) is not None


@pytest.mark.slow
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_a_tutorial_runs_as_it_stands(page, tmp_path):
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": programs, "OMP_NUM_THREADS": "1"}
    programs_of = {"sh": ["bash", "-euo", "pipefail", "-c"], "python": [sys.executable, "-c"]}
    printed = ""
    for language, frame in FRAME.findall(page.read_text("utf-8")):
        if language == "text":
            assert shows(frame, printed), f"{frame}\nis not in\n{printed}"
            continue
        done = subprocess.run(
            [*programs_of[language], frame],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{frame}\n{done.stdout}\n{done.stderr}"
        printed = done.stdout + done.stderr


def test_four_tutorials_have_frames():
    assert len(TUTORIALS) == 4


def test_what_a_frame_shows():
    printed = "images  96, 4 kB  \nmodes  RGB\nwidth  96\n"
    assert shows("images  96, …\nwidth  96\n", printed)
    assert not shows("width  96\nimages  96, …\n", printed)
    assert not shows("images  95, …\n", printed)
