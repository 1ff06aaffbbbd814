"""A command that is shown can be copied into a shell, whatever the files are called."""

import logging
import shlex
from pathlib import Path

import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import convert
from densessl.slurm import flags
from densessl.slurm.settings import Cluster

FOLDER = "my run's $HOME"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    place = tmp_path / FOLDER
    place.mkdir()
    monkeypatch.chdir(place)
    return place


def commands(text: str) -> list[list[str]]:
    """The commands that a text ends with, a line each, as a shell takes them apart."""
    lines = [line for line in text.splitlines() if "densessl " in line]
    return [shlex.split(line[line.index("densessl ") :]) for line in lines]


def test_of_a_checkpoint(folder, capsys):
    from torchvision.models import resnet18

    torch.save(resnet18().state_dict(), "a b.pth")
    assert densessl.main(["inspect", f"{folder}/a b.pth"]) == 0
    (command,) = commands(capsys.readouterr().out)
    assert command[:3] == ["densessl", "convert", f"{folder}/a b.pth"] and command[3] == "-o"
    assert densessl.main(["convert", "a b.pth", "-o", f"{folder}/c d.pkl"]) == 0
    (command,) = commands(capsys.readouterr().out)
    assert command[:3] == ["densessl", "transfer", f"{folder}/c d.pkl"]
    with pytest.raises(InputError) as caught:
        convert.read_weights(f"{folder}/a b.pth")
    (command,) = commands(str(caught.value))
    assert command == ["densessl", "convert", f"{folder}/a b.pth", "-o", "a b.pkl"]


def test_of_a_folder_of_jobs(folder, caplog):
    logging.getLogger("densessl").propagate = True
    with caplog.at_level(logging.INFO, "densessl"):
        flags.tell([], folder, Cluster())
    told = caplog.messages[-1]
    for verb in ("status", "cancel"):
        words = shlex.split(told[told.index(f"densessl {verb}") :].replace(";", " "))
        assert words[:3] == ["densessl", verb, str(folder)]


def test_of_one_machine_needs_no_free_port_to_be_chosen():
    """Two runs of torchrun on one machine would take the same one."""
    root = Path(densessl.__file__).parents[1]
    places = [
        root / "README.md",
        *(root / "docs").glob("*.md"),
        *(root / "configs").rglob("*.yaml"),
    ]
    places += [*(root / "pretrain").rglob("*.py"), *(root / "slurm").rglob("*.py")]
    for place in places:
        for line in place.read_text(encoding="utf-8").splitlines():
            if "torchrun " in line and "nproc_per_node" in line:
                assert "--standalone" in line or "--rdzv_endpoint" in line, (place, line)
