"""Where a ResNet goes besides Detectron2: torchvision, timm, safetensors; what OUT decides."""

import shlex

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.convert import (
    ProofFailed,
    convert,
    main,
    prove_timm,
    read_checkpoint,
    read_weights,
)
from densessl.d2_transfer.convert.prove import STAGES
from densessl.d2_transfer.convert.weights import check_detector_config
from densessl.d2_transfer.resolve import resolve
from densessl.weight_files.recognise import recognise

NORMALIZATION = {"mean": [0.5] * 3, "std": [0.25] * 3, "channel_order": "RGB"}


@pytest.fixture(scope="module")
def checkpoint(our_checkpoint, tmp_path_factory):
    return our_checkpoint(tmp_path_factory.mktemp("run") / "backbone_final.pth")


@pytest.fixture(scope="module")
def resnet(random_resnet):
    return random_resnet(18)


def assert_same(state: dict, wanted: dict):
    assert state.keys() == wanted.keys()
    assert [name for name in wanted if not torch.equal(state[name], wanted[name])] == []


@pytest.mark.parametrize(
    "out, target",
    [
        ("w.pkl", "detectron2"),
        ("w.pth", "torchvision"),
        ("w.pt", "torchvision"),
        ("w.safetensors", "safetensors"),
    ],
)
def test_the_ending_decides(checkpoint, resnet, tmp_path, out, target):
    report = convert(checkpoint, tmp_path / out)
    assert report.target == target and report.method == "setsim"
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    assert_same(recognise(read_checkpoint(tmp_path / out)).backbone, resnet)


@pytest.mark.parametrize("out", ["w.pth", "w.safetensors"])
def test_torchvisions_names_are_proved_without_detectron2(
    checkpoint, resnet, tmp_path, monkeypatch, out
):
    monkeypatch.setattr(compat, "is_installed", lambda name: name != "detectron2")
    monkeypatch.delattr(compat, "setup")
    report = convert(checkpoint, tmp_path / out)
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    assert_same(recognise(read_checkpoint(tmp_path / out)).backbone, resnet)


@pytest.mark.parametrize("depth", [18, 101])
def test_the_command_that_comes_next_suits_the_weights(random_resnet, tmp_path, depth):
    torch.save(random_resnet(depth), tmp_path / "official.pth")
    report = convert(tmp_path / "official.pth", tmp_path / "w.pkl")
    words = shlex.split(report.next_command)
    assert words[:2] == ["densessl", "transfer"] and words[2] == str(tmp_path / "w.pkl")
    protocol = words[words.index("--protocol") + 1]
    cfg = resolve(protocol, overrides=words[words.index("-o") + 2 :])
    check_detector_config(read_weights(tmp_path / "w.pkl"), cfg)
    assert depth == cfg.MODEL.RESNETS.DEPTH


def test_foreign_weights_get_the_facts_that_are_given(random_resnet, tmp_path):
    torch.save(random_resnet(18), tmp_path / "official.pth")
    words = [str(tmp_path / "official.pth"), "-o", str(tmp_path / "w.pkl"), "--method", "infomin"]
    assert main.main([*words, "--pretrain", "dataset=imagenet", "epochs=200"]) == 0
    facts = read_weights(tmp_path / "w.pkl")["densessl"]
    assert facts["pretrain"] == {"dataset": "imagenet", "epochs": 200}
    assert facts["method"] == "infomin"


@pytest.mark.parametrize(
    "given, says",
    [
        (["epochs"], "'epochs'; allowed: KEY=VALUE"),
        (["epoch=200"], "'epoch'.*epochs"),
        (["epochs=many"], "'epochs=many'; allowed: a positive number"),
        (["seed=-1"], "'seed=-1'; allowed: a whole number, 0 or more"),
    ],
)
def test_facts_that_cannot_be_are_refused(checkpoint, tmp_path, given, says):
    with pytest.raises(InputError, match=says):
        main.main([str(checkpoint), "-o", str(tmp_path / "w.pkl"), "--pretrain", *given])
    assert not (tmp_path / "w.pkl").exists()


def test_what_a_file_tells_itself_counts(checkpoint, tmp_path, capsys):
    words = [str(checkpoint), "-o", str(tmp_path / "w.pkl")]
    assert main.main([*words, "--pretrain", "epochs=7", "recipe=mine", "seed=0"]) == 0
    facts = read_weights(tmp_path / "w.pkl")["densessl"]["pretrain"]
    assert (facts["epochs"], facts["recipe"], facts["seed"]) == (200, "mine", 0)
    assert "the file says itself: epochs 200; --pretrain is not taken" in capsys.readouterr().out


def test_to_timm(random_resnet, tmp_path):
    resnet = random_resnet(50)
    torch.save(resnet, tmp_path / "c.pth")
    report = convert(tmp_path / "c.pth", tmp_path / "timm.pth", target="timm")
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    network = eval(report.next_command, {"timm": timm})
    assert_same(network.state_dict(), resnet)


def test_safetensors_as_the_library_reads_and_writes_them(checkpoint, resnet, tmp_path):
    report = convert(checkpoint, tmp_path / "w.safetensors")
    assert_same(load_file(tmp_path / "w.safetensors"), resnet)
    assert_same(eval(report.next_command, {"timm": timm}).state_dict(), resnet)
    half = {n: t.half() if t.is_floating_point() else t for n, t in resnet.items()}
    half |= {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}
    save_file(half, tmp_path / "theirs.safetensors", metadata={"format": "pt"})
    report = convert(tmp_path / "theirs.safetensors", tmp_path / "w.pth")
    assert (report.layout, report.method) == ("torchvision", "unknown")
    assert "float16, and are float32 now" in str(report)
    state = torch.load(tmp_path / "w.pth", weights_only=True)
    assert_same(state, {n: half[n].float() if resnet[n].ndim else half[n] for n in resnet})


def test_safetensors_keep_the_facts_and_are_the_same_bytes_again(checkpoint, tmp_path):
    path = tmp_path / "w.safetensors"
    convert(checkpoint, path)
    first = path.read_bytes()
    convert(checkpoint, path, force=True)
    assert path.read_bytes() == first
    report = convert(path, tmp_path / "w.pkl")
    assert report.method == "setsim" and report.pretrain["dataset"] == "imagenet100"
    assert read_weights(tmp_path / "w.pkl")["densessl"]["normalization"]["pixel_mean"] == [
        123.675,
        116.28,
        103.53,
    ]


@pytest.mark.parametrize("keep", [4, 9, 100, 5000, -1])
def test_truncated_safetensors(checkpoint, tmp_path, keep):
    convert(checkpoint, tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:keep])
    with pytest.raises(InputError, match="damaged"):
        read_checkpoint(tmp_path / "cut.safetensors")


def test_a_safetensors_header_that_does_not_agree(tmp_path):
    for entry, words in (
        ('{"dtype":"F32","shape":[4],"data_offsets":[0,8]}', "does not lie within the file"),
        ('{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}', "does not lie within the file"),
        ('{"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]}', "type F8_E4M3"),
        ('{"dtype":"F32"}', "damaged"),
    ):
        header = f'{{"conv1.weight":{entry}}}'.encode()
        data = len(header).to_bytes(8, "little") + header + bytes(8)
        (tmp_path / "w.safetensors").write_bytes(data)
        with pytest.raises(InputError, match=words):
            read_checkpoint(tmp_path / "w.safetensors")


# The proof of timm's network can fail -------------------------------------------------------------


@pytest.fixture
def proof(resnet):
    scaled = {"pixel_mean": [127.5] * 3, "pixel_std": [63.75] * 3}
    facts = {"network": "resnet18", "depth": 18, "stride_in_1x1": False}
    facts |= {"channel_order": "RGB", "normalization": scaled}
    return [resnet, NORMALIZATION, dict(resnet), facts]


def test_it_holds_untouched(proof):
    assert [stage.name for stage in prove_timm(*proof)] == ["input", *STAGES]


@pytest.mark.parametrize(
    ("name", "stage"),
    [("bn1.running_mean", "stem"), ("layer2.0.downsample.1.bias", "res3")],
)
def test_a_tampered_tensor_names_its_stage_and_itself(proof, name, stage):
    proof[2][name] = proof[0][name] + 0.5
    with pytest.raises(ProofFailed) as failure:
        prove_timm(*proof)
    message = str(failure.value)
    assert f"{name}: not the source's tensor" in message
    differing = [s for s in ("input", *STAGES) if f"{s}: largest difference" in message]
    assert differing == list(STAGES[STAGES.index(stage) :])


def test_a_missing_tensor_and_another_mean(proof):
    tensor = proof[2].pop("layer3.0.bn1.weight")
    with pytest.raises(ProofFailed, match=r"layer3\.0\.bn1\.weight"):
        prove_timm(*proof)
    proof[2]["layer3.0.bn1.weight"] = tensor
    proof[3]["normalization"]["pixel_mean"] = [0.0] * 3
    with pytest.raises(ProofFailed, match="input: largest difference"):
        prove_timm(*proof)
