import hashlib

import numpy
import pytest
import torch

import densessl
from densessl.core.errors import EnvironmentLacks, InputError
from densessl.d2_transfer import compat
from densessl.d2_transfer.convert import ProofFailed, convert, prove, read_weights
from densessl.d2_transfer.convert.prove import STAGES
from densessl.weight_files.keys import detectron2_names


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def checkpoint(our_checkpoint, tmp_path_factory):
    return our_checkpoint(tmp_path_factory.mktemp("run") / "backbone_final.pth")


@pytest.fixture(scope="module")
def converted(checkpoint, tmp_path_factory):
    out = tmp_path_factory.mktemp("weights") / "setsim.pkl"
    return convert(checkpoint, out), out


def detector(depth: int, fpn: bool):
    """A Detectron2 backbone (and C4's res5) with the parameter names that a detector has."""
    compat.setup()
    from detectron2.modeling import build_model

    cfg = compat.get_cfg()
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.DEPTH, cfg.MODEL.RESNETS.NORM = depth, "BN"
    cfg.MODEL.RESNETS.STRIDE_IN_1X1, cfg.MODEL.BACKBONE.FREEZE_AT = False, 0
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 256 if depth >= 50 else 64
    if fpn:
        cfg.MODEL.BACKBONE.NAME = "build_resnet_fpn_backbone"
        levels = ["res2", "res3", "res4", "res5"]
        cfg.MODEL.RESNETS.OUT_FEATURES = cfg.MODEL.FPN.IN_FEATURES = levels
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = [[32], [64], [128], [256], [512]]
        cfg.MODEL.RPN.IN_FEATURES = ["p2", "p3", "p4", "p5", "p6"]
        cfg.MODEL.ROI_HEADS.NAME = "StandardROIHeads"
        cfg.MODEL.ROI_BOX_HEAD.NAME, cfg.MODEL.ROI_BOX_HEAD.NUM_FC = "FastRCNNConvFCHead", 1
        cfg.MODEL.ROI_BOX_HEAD.FC_DIM = 8
        cfg.MODEL.ROI_HEADS.IN_FEATURES = ["p2", "p3", "p4", "p5"]
    return build_model(cfg)


def test_resnet50_fills_every_backbone_parameter_of_a_c4_detector(our_checkpoint, tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer

    source = our_checkpoint(tmp_path / "step_00000123.pth", 50)
    report = convert(source, tmp_path / "w.pkl")
    assert report.tensors == 318 and report.depth == 50
    assert [stage.name for stage in report.stages] == ["input", *STAGES]
    assert all(stage.difference <= 1e-5 * stage.magnitude for stage in report.stages)
    model = detector(50, fpn=False)
    DetectionCheckpointer(model).load(str(tmp_path / "w.pkl"))
    wanted = torch.load(source, weights_only=True)["backbone"]
    state, names = model.state_dict(), detectron2_names(50)
    for name, tensor in wanted.items():
        place = "roi_heads." if names[name].startswith("res5") else "backbone."
        assert torch.equal(state[place + names[name]], tensor), name
    filled = [n for n in state if n.startswith(("backbone.", "roi_heads.res5."))]
    assert len(filled) == 318


def test_detectron2s_own_loader_fills_an_fpn_detector(converted, checkpoint):
    from detectron2.checkpoint import DetectionCheckpointer

    model = detector(18, fpn=True)
    DetectionCheckpointer(model).load(str(converted[1]))
    state = model.state_dict()
    for name, tensor in torch.load(checkpoint, weights_only=True)["backbone"].items():
        assert torch.equal(state[f"backbone.bottom_up.{detectron2_names(18)[name]}"], tensor)


def test_the_file_says_where_the_weights_come_from(converted, checkpoint):
    held = read_weights(converted[1])
    assert held["__author__"] == "DenseSSL" and held["matching_heuristics"] is True
    facts = held["densessl"]
    assert facts["method"] == "setsim" and facts["depth"] == 18 and facts["format"] == 1
    assert facts["pretrain"] == {"dataset": "imagenet100", "images": 126689, "epochs": 200}
    assert facts["source_sha256"] == sha256(checkpoint) == converted[0].source_sha256
    assert facts["channel_order"] == "RGB" and facts["stride_in_1x1"] is False
    assert facts["normalization"] == {
        "pixel_mean": [123.675, 116.28, 103.53],
        "pixel_std": [58.395, 57.12, 57.375],
    }
    assert converted[0].sha256 == sha256(converted[1])


def test_a_checkpoint_of_an_unfinished_run_tells_the_epochs_done(our_checkpoint, tmp_path):
    told = {"dataset": "coco", "epochs": 200, "steps": 48}
    source = our_checkpoint(tmp_path / "step_00000012.pth", pretrain=told, iteration=12)
    report = convert(source, tmp_path / "w.pkl")
    assert report.pretrain == {"dataset": "coco", "epochs": 50, "steps": 12}
    assert "epochs 50" in str(report)


def test_the_same_input_gives_the_same_bytes(converted, checkpoint, tmp_path):
    convert(checkpoint, tmp_path / "again.pkl")
    assert (tmp_path / "again.pkl").read_bytes() == converted[1].read_bytes()


def test_to_torchvision_and_back_is_the_identity(converted, checkpoint, tmp_path):
    from torchvision.models import resnet18

    convert(converted[1], tmp_path / "tv.pth", target="torchvision")
    state = torch.load(tmp_path / "tv.pth", weights_only=True)
    wanted = torch.load(checkpoint, weights_only=True)["backbone"]
    assert list(state) == list(wanted)
    assert all(torch.equal(state[name], wanted[name]) for name in wanted)
    loaded = resnet18().load_state_dict(state, strict=False)
    assert loaded.missing_keys == ["fc.weight", "fc.bias"] and not loaded.unexpected_keys
    convert(tmp_path / "tv.pth", tmp_path / "back.pkl")
    before, after = read_weights(converted[1]), read_weights(tmp_path / "back.pkl")
    assert all(numpy.array_equal(after["model"][n], a) for n, a in before["model"].items())
    for fact in ("method", "pretrain", "normalization", "tensors_sha256"):
        assert after["densessl"][fact] == before["densessl"][fact]


def test_a_torchvision_file_without_counters_and_with_its_classifier(random_resnet, tmp_path):
    state = {n: t for n, t in random_resnet(18).items() if "num_batches" not in n}
    state |= {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}
    torch.save(state, tmp_path / "resnet18-old.pth")
    report = convert(tmp_path / "resnet18-old.pth", tmp_path / "w.pkl", method="supervised")
    assert report.counters_added == 20 and report.method == "supervised"
    model = read_weights(tmp_path / "w.pkl")["model"]
    assert len(model) == report.tensors == 120
    assert model["res5.1.conv2.norm.num_batches_tracked"] == 0


@pytest.mark.parametrize("norm", [False, True])
def test_an_fpn_travels_and_is_proved(our_checkpoint, tmp_path, norm):
    """ReSim's levels: lateral 3 to 5, output 3 and 4."""
    fpn = {}
    generator = torch.Generator().manual_seed(1)
    shapes = {"fpn_lateral3": 128, "fpn_lateral4": 256, "fpn_lateral5": 512}
    shapes |= {"fpn_output3": 256, "fpn_output4": 256}
    for name, channels in shapes.items():
        side = 3 if "output" in name else 1
        conv = torch.randn(256, channels, side, side, generator=generator) / channels**0.5
        if norm:  # as a Sequential(conv, bn)
            fpn[f"{name}.0.weight"] = conv
            for part in ("weight", "bias", "running_mean"):
                fpn[f"{name}.1.{part}"] = torch.randn(256, generator=generator)
            fpn[f"{name}.1.running_var"] = torch.rand(256, generator=generator) + 0.5
            fpn[f"{name}.1.num_batches_tracked"] = torch.tensor(3)
        else:
            fpn[f"{name}.weight"] = conv
            fpn[f"{name}.bias"] = torch.randn(256, generator=generator)
    report = convert(our_checkpoint(tmp_path / "c.pth", fpn=fpn), tmp_path / "w.pkl")
    assert report.fpn_tensors == len(fpn)
    assert {"p3", "p4"} <= {stage.name for stage in report.stages}
    name = "backbone.fpn_lateral4.norm.bias" if norm else "backbone.fpn_lateral4.bias"
    held = read_weights(tmp_path / "w.pkl")
    source = fpn["fpn_lateral4.1.bias" if norm else "fpn_lateral4.bias"]
    assert numpy.array_equal(held["model"][name], source.numpy())


# The proof can fail ------------------------------------------------------------------------------


@pytest.fixture
def proof(converted, checkpoint):
    """The arguments of a proof that holds."""
    held = read_weights(converted[1])
    source = torch.load(checkpoint, weights_only=True)
    return [source["backbone"], source["normalization"], held["model"], held["densessl"]]


def test_it_holds_untouched(proof):
    assert [stage.name for stage in prove(*proof)] == ["input", *STAGES]


@pytest.mark.parametrize(
    "name, stage",
    [
        ("stem.conv1.norm.running_mean", "stem"),
        ("res2.1.conv2.weight", "res2"),
        ("res4.0.shortcut.norm.running_var", "res4"),
        ("res5.1.conv2.norm.bias", "res5"),
    ],
)
def test_a_tampered_tensor_names_its_stage_and_itself(proof, name, stage):
    proof[2][name].flat[0] += 0.5
    with pytest.raises(ProofFailed) as failure:
        prove(*proof)
    message = str(failure.value)
    assert f"{name}: not the source's tensor" in message
    differing = [s for s in ("input", *STAGES) if f"{s}: largest difference" in message]
    assert differing == list(STAGES[STAGES.index(stage) :])


def test_two_tensors_of_one_shape_swapped(proof):
    a, b = "res2.0.conv1.weight", "res2.1.conv1.weight"
    proof[2][a], proof[2][b] = proof[2][b], proof[2][a]
    with pytest.raises(ProofFailed, match="res2: largest difference"):
        prove(*proof)


def test_a_missing_tensor(proof):
    del proof[2]["res3.0.conv1.weight"]
    with pytest.raises(ProofFailed, match=r"res3\.0\.conv1\.weight"):
        prove(*proof)


def test_channels_in_another_order(proof):
    proof[3]["channel_order"] = "BGR"
    with pytest.raises(ProofFailed, match="input: largest difference"):
        prove(*proof)


def test_another_pixel_mean(proof):
    proof[3]["normalization"]["pixel_mean"] = [103.53, 116.28, 123.675]
    with pytest.raises(ProofFailed, match="input: largest difference"):
        prove(*proof)


def test_the_stride_in_another_convolution(random_resnet):
    state = random_resnet(50)
    model = {detectron2_names(50)[name]: tensor for name, tensor in state.items()}
    normalization = {"mean": [0.5] * 3, "std": [0.25] * 3, "channel_order": "RGB"}
    scaled = {"pixel_mean": [127.5] * 3, "pixel_std": [63.75] * 3}
    facts = {"depth": 50, "channel_order": "RGB", "normalization": scaled, "stride_in_1x1": True}
    with pytest.raises(ProofFailed) as failure:
        prove(state, normalization, model, facts)
    assert "res3: largest difference" in str(failure.value)
    assert "res2: largest difference" not in str(failure.value)  # has no stride


def test_a_failed_proof_writes_nothing(checkpoint, tmp_path, monkeypatch):
    """A wrong mapping (two batch norms of a block exchanged) is caught on the file read back."""
    from densessl.weight_files import keys

    wrong = dict(detectron2_names(18))
    a, b = "layer3.1.bn1.weight", "layer3.1.bn2.weight"
    wrong[a], wrong[b] = wrong[b], wrong[a]
    monkeypatch.setattr("densessl.d2_transfer.convert.conversion.keys", Exchanged(keys, wrong))
    with pytest.raises(ProofFailed, match="res4: largest difference"):
        convert(checkpoint, tmp_path / "w.pkl")
    assert list(tmp_path.iterdir()) == []


class Exchanged:
    def __init__(self, keys, names):
        self.keys, self.names = keys, names

    def detectron2_names(self, depth):
        return self.names


# Refusals ----------------------------------------------------------------------------------------


def test_an_existing_other_file_stays_unless_forced(checkpoint, converted, tmp_path):
    out = tmp_path / "w.pkl"
    out.write_bytes(b"mine")
    with pytest.raises(InputError, match="--force"):
        convert(checkpoint, out)
    assert out.read_bytes() == b"mine"
    convert(checkpoint, out, force=True)
    assert out.read_bytes() == converted[1].read_bytes()
    convert(checkpoint, out)  # the same again: nothing to refuse


def test_a_wrong_ending_is_refused_with_the_right_one(checkpoint, tmp_path):
    with pytest.raises(InputError, match=r"w\.pkl"):
        convert(checkpoint, tmp_path / "w.pth", target="detectron2")
    with pytest.raises(InputError, match=r"w\.tar.*none of \.pkl, \.pt, \.pth, \.safetensors"):
        convert(checkpoint, tmp_path / "w.tar")
    with pytest.raises(InputError, match="unknown target 'onnx'"):
        convert(checkpoint, tmp_path / "w.pkl", target="onnx")


def test_a_folder_that_cannot_be_written_is_one_message(checkpoint, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="w.pkl: a part of its path is a file"):
        convert(checkpoint, tmp_path / "file" / "w.pkl")
    with pytest.raises(EnvironmentLacks, match="cannot write /proc/none/w.pkl"):
        convert(checkpoint, "/proc/none/w.pkl")


def test_command_line(checkpoint, tmp_path, capsys):
    out = tmp_path / "w.pkl"
    assert densessl.main(["convert", str(checkpoint), "-o", str(out)]) == 0
    said = capsys.readouterr().out
    for expected in ("setsim", "120 of ResNet-18", "res5", sha256(out), "densessl transfer"):
        assert expected in said
    assert "voc_det_c4" not in said  # a C4 head cannot take a ResNet-18

    for wrong, word in (
        (["convert", "nothing.pth", "-o", str(out)], "nothing.pth does not exist"),
        (["convert", str(checkpoint), "-o", str(out), "--from", "torchvison"], "'torchvision'"),
        (["convert", str(checkpoint), "-o", str(out), "--to", "detectron"], "'detectron2'"),
        (["convert", str(checkpoint)], "-o"),
    ):
        assert densessl.main(wrong) == 2
        assert word in capsys.readouterr().err
