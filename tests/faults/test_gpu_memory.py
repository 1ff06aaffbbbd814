"""A GPU that is full: one message with PyTorch's numbers and what needs less; nothing is lost.

No GPU is needed: PyTorch's own error is raised by a method of the user's, in its words.
"""

import pytest

OUT_OF_MEMORY = (  # in PyTorch's words
    "CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of 79.10 GiB of "
    "which 18.00 MiB is free. Including non-PyTorch memory, this process has 79.00 GiB memory in "
    "use. If reserved but unallocated memory is large try setting PYTORCH_CUDA_ALLOC_CONF"
)
METHOD = """
from pathlib import Path

import torch
from densessl.pretrain.methods.moco import MoCo


class Large(MoCo):
    def forward(self, views, step):
        if step == {step} and Path({full!r}).exists():
            raise torch.cuda.OutOfMemoryError({message!r})
        return super().forward(views, step)
"""


@pytest.mark.parametrize("step", [0, 6])
def test_the_message_has_numbers_and_settings_and_the_run_resumes(
    tiny, densessl, check_same_run, tmp_path, step
):
    full = tmp_path / "full"
    full.touch()
    file = tmp_path / "own.py"
    file.write_text(METHOD.format(step=step, full=str(full), message=OUT_OF_MEMORY))
    cfg = tiny(f"{file}:Large", tmp_path / "run")
    (tmp_path / "run.yaml").write_text(cfg.dump())
    message = densessl("pretrain", "--config", tmp_path / "run.yaml", code=3)
    *_, last = message.split("densessl: ")  # behind the lines of the log
    assert f"step {step + 1} of 9" in last
    assert "allocate 2.50 GiB" in last and "79.10 GiB" in last and "ALLOC_CONF" not in last
    settings = [line for line in last.splitlines() if line.startswith("  ")]
    assert len(settings) == 4
    assert any(line.split()[:2] == ["AMP", "bf16"] for line in settings)
    assert any(line.split()[:2] == ["SOLVER.ACCUMULATE", "2"] for line in settings)
    assert any(line.split()[:2] == ["SOLVER.BATCH_SIZE", "4"] for line in settings)
    assert ("--change AMP" in last) == (step > 0)  # a run with checkpoints is resumed
    full.unlink()
    densessl("pretrain", "--config", tmp_path / "run.yaml")
    whole = tiny(f"{file}:Large", tmp_path / "whole")
    (tmp_path / "whole.yaml").write_text(whole.dump())
    densessl("pretrain", "--config", tmp_path / "whole.yaml")
    check_same_run(tmp_path / "run", tmp_path / "whole")
