"""Detectron2 is not installed: images become weights all the same, and fine-tuning says what to do.

It is hidden from a process of its own, as if its package were not there.
"""

import subprocess
import sys

import pytest

HIDDEN = "import sys; sys.modules['detectron2'] = None; import densessl; sys.exit(densessl.main())"


@pytest.fixture
def hidden(tmp_path):
    """``hidden("pretrain", …, code=0)``: what a verb says in a process without Detectron2."""

    def run(*words, code=0):
        command = [sys.executable, "-c", HIDDEN, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout + done.stderr

    return run


def test_without_detectron2_weights_are_made_and_transfer_names_the_command(hidden, tiny, tmp_path):
    cfg = tiny("moco", tmp_path / "run", "SOLVER.MAX_STEPS", 1)
    (tmp_path / "run.yaml").write_text(cfg.dump())
    hidden("pretrain", "--config", "run.yaml")
    words = ("--protocol", "coco_mask_fpn_1x", "--mini", "-o", "out")
    message = hidden("transfer", "run/backbone_final.pth", *words, code=3)
    assert "make setup" in message or "pip install" in message
    assert not (tmp_path / "out").exists()
