"""``densessl inspect``: what it says of files of every kind."""

import argparse

import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer.convert import convert
from densessl.d2_transfer.convert.inspection import examine

METHOD = "setsim (dataset imagenet100, images 126689, epochs 200)"


@pytest.fixture(scope="module")
def ours(our_checkpoint, tmp_path_factory):
    return our_checkpoint(tmp_path_factory.mktemp("run") / "backbone_final.pth")


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def inspected(path, capsys, *options) -> tuple[int, dict, str]:
    """The exit code, the rows by their label (the first of each) and the message."""
    capsys.readouterr()
    code = densessl.main(["inspect", str(path), *options])
    said = capsys.readouterr()
    rows = {}
    for line in said.out.splitlines():
        rows.setdefault(line[:13].strip(), line[13:])
    return code, rows, said.err


def test_our_own_pretraining(ours, capsys):
    code, rows, _ = inspected(ours, capsys)
    assert code == 0
    assert rows["file"].startswith(str(ours)) and rows["file"].endswith("MB, torch.save")
    assert rows["layout"] == "densessl pretrain (densessl layout)"
    assert rows["method"] == METHOD
    assert rows["progress"] == "iteration 12"
    assert "ResNet-18, 120 tensors, 11,176,512 parameters" in rows["backbone"]
    assert rows["images"].startswith("RGB, mean 123.675 116.28 103.53")
    assert rows["converts to"] == (
        "detectron2 (.pkl), torchvision (.pth), timm (.pth), safetensors (.safetensors)"
    )
    assert rows["next"] == f"densessl convert {ours} -o backbone_final.pkl"


@pytest.mark.parametrize("name", ["w.pkl", "w.pth", "w.safetensors"])
def test_converted_files(ours, tmp_path, capsys, name):
    convert(ours, tmp_path / name)
    code, rows, _ = inspected(tmp_path / name, capsys)
    assert code == 0
    assert rows["method"] == METHOD
    assert rows["backbone"].startswith("ResNet-18, 120 tensors")
    assert not rows["next"].endswith(f"-o {name}")


def test_a_training_file_with_two_networks(random_resnet, tmp_path, capsys):
    networks = prefixed(random_resnet(18), "module.encoder_q.")
    networks |= prefixed(random_resnet(18), "module.encoder_k.")
    heads = {"module.queue": torch.zeros(8, 16), "module.encoder_q.fc.0.weight": torch.zeros(2, 2)}
    file = {
        "epoch": 200,
        "arch": "resnet18",
        "state_dict": networks | heads,
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(1000)}}, "param_groups": []},
        "args": argparse.Namespace(arch="resnet18", epochs=800, lr=0.03),
    }
    torch.save(file, tmp_path / "checkpoint_0199.pth.tar", _use_new_zipfile_serialization=False)
    code, rows, _ = inspected(tmp_path / "checkpoint_0199.pth.tar", capsys)
    assert code == 0
    assert rows["file"].endswith("torch.save before 1.6")
    assert rows["layout"] == "MoCo-v2 (moco_v2 layout), query branch"
    assert rows["progress"] == "epoch 200"
    assert rows["arguments"] == "arch resnet18, epochs 800, lr 0.03"
    assert rows["backbone"].endswith(": state_dict:module.encoder_q.*")
    assert rows["other"] == "key branch, state_dict:module.encoder_k.*: --branch key"
    assert rows["left"] == "encoder_k (120), queue (1), encoder_q.fc (1)"
    assert rows["next"].endswith(" -o checkpoint_0199.pkl")
    held = dict(examine(tmp_path / "checkpoint_0199.pth.tar")[0])
    assert held["holds"] == "epoch: 200"
    _, rows, _ = inspected(tmp_path / "checkpoint_0199.pth.tar", capsys, "--branch", "key")
    assert rows["layout"].endswith("key branch")
    assert rows["backbone"].endswith(": state_dict:module.encoder_k.*")


def test_what_a_file_holds(tmp_path):
    held = {
        "config": "TEXT: 1\n" * 20,
        "epoch": 3,
        "best": torch.tensor([1.0, 2.0]),
        "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(1000)}}, "param_groups": []},
        "args": argparse.Namespace(a=1),
        "scaler": {},
    }
    torch.save(held, tmp_path / "c.pth")
    rows, problem = examine(tmp_path / "c.pth")
    texts = [text for label, text in rows if label in ("holds", "")]
    assert texts == [
        "config: text of 159 characters",
        "epoch: 3",
        "best: a tensor 2",
        "optimizer: 1 tensor, 4.0 kB",
        "args: argparse.Namespace, 1 field",
        "scaler: 0 values",
    ]
    assert isinstance(problem, InputError)


def test_a_list_within_itself(tmp_path):
    endless = [torch.zeros(3)]
    endless.append(endless)
    torch.save({"a": endless, "b": [1]}, tmp_path / "c.pth")
    rows, problem = examine(tmp_path / "c.pth")
    assert isinstance(problem, InputError) and any("tensors" in text for _, text in rows)


def test_an_unknown_layout_is_seen_and_ends_with_exit_code_2(random_resnet, tmp_path, capsys):
    file = {"net": prefixed(random_resnet(18), "trunk.")}
    torch.save(file, tmp_path / "c.pth")
    code, rows, message = inspected(tmp_path / "c.pth", capsys)
    assert code == 2 and rows["holds"] == "net: 120 tensors, 44.7 MB"
    assert message.count("\n") == 1 and "--from net:trunk.  (ResNet-18)" in message
    code, rows, message = inspected(tmp_path / "c.pth", capsys, "--from", "net:trunk.")
    assert (code, message) == (0, "")
    assert rows["layout"] == "named by --from (net:trunk. layout)"


def test_what_cannot_be_read_is_one_message(tmp_path, capsys):
    (tmp_path / "c.pth").write_bytes(b"<html></html>")
    for path in (tmp_path / "c.pth", tmp_path, tmp_path / "absent.pth"):
        code, rows, message = inspected(path, capsys)
        assert code == 2 and not rows and message.count("\n") == 1


def test_a_vit_goes_everywhere(tmp_path, capsys):
    import timm

    with torch.device("meta"):
        state = timm.models.vision_transformer.vit_tiny_patch16_224(num_classes=0).state_dict()
    torch.save({n: torch.ones(t.shape) for n, t in state.items()}, tmp_path / "vit.pth")
    code, rows, _ = inspected(tmp_path / "vit.pth", capsys)
    assert code == 0 and rows["backbone"].startswith("ViT-Ti/16, 150 tensors, 5,524,416 parameters")
    assert rows["converts to"].startswith("detectron2 (.pkl), torchvision (.pth), timm (.pth)")
    assert rows["next"].endswith("-o vit.pkl")


def test_on_a_terminal_it_is_a_table(ours, capsys, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert densessl.main(["inspect", str(ours)]) == 0
    said = capsys.readouterr().out
    assert "densessl pretrain (densessl layout)" in said and "[bold]" not in said
