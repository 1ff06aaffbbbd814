"""What a message says of a name that is not there, and where torchrun finds a message."""

import json
import time

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from densessl.cli import main
from densessl.core.errors import report, unknown


def test_of_many_names_only_the_near_ones_are_listed():
    names = [f"moco_v2_{epochs}ep" for epochs in range(100, 200)] + ["setsim_200ep"]
    said = str(unknown("config", "setsim_20ep", names, "--config"))
    assert "Did you mean 'setsim_200ep'?" in said
    assert "101 in all" in said and len(said) < 400


def summary(folder):
    """torchrun's last lines, of two processes, each with what it left in its file."""
    failures = {
        rank: ProcessFailure(rank, 1000 + rank, code, str(folder / f"{rank}.json"))
        for rank, code in enumerate((75, 2))
    }
    return str(ChildFailedError("densessl", failures))


def test_torchrun_ends_with_the_message_of_the_process_that_failed(tmp_path, monkeypatch, capsys):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: int(now) + 0.25)  # both within one second
    for rank, verb, code in ((1, "inspect", 2), (0, "pretrain", 75)):
        monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / f"{rank}.json"))
        if code == 2:
            assert main([verb, "nothing.pth"]) == code
        else:
            report("densessl pretrain: stopped by torchrun", code)
    said, _ = capsys.readouterr().err.splitlines()
    assert said.startswith("densessl inspect: ") and "nothing.pth" in said
    others, _, cause = summary(tmp_path).partition("Root Cause")
    assert f"traceback : {said}\n" in cause and "stopped by torchrun" in others
    assert json.loads((tmp_path / "1.json").read_text())["message"]["message"] == said


def test_a_message_is_printed_where_torchruns_file_cannot_be_written(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "gone" / "0.json"))
    report("densessl pretrain: so it is", 2)
    assert capsys.readouterr().err == "densessl pretrain: so it is\n"
