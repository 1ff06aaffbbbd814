"""``BACKBONE.WEIGHTS``: what ``densessl convert`` takes is taken, through the same door."""

import functools
import pickle
import re
from pathlib import Path

import pytest
import torch
from torchvision.models import resnet

from densessl import pretrain
from densessl.core import files
from densessl.core.errors import InputError
from densessl.pretrain.backbones import build_backbone
from densessl.pretrain.backbones.start import starting_state
from densessl.pretrain.engine.facts import start_facts
from densessl.pretrain.engine.train import train
from densessl.pretrain.methods.base import starting_weights
from densessl.pretrain.views import NORMALIZATION
from densessl.weight_files.keys import detectron2_names

RESNET = ("BACKBONE.NAME", "resnet18")
BGR = {"mean": [0.406, 0.456, 0.485], "std": [0.225, 0.224, 0.229], "channel_order": "BGR"}
HALVES = {"mean": [0.5] * 3, "std": [0.5, 0.25, 0.5], "channel_order": "RGB"}


@pytest.fixture(scope="module")
def state() -> dict:
    torch.manual_seed(0)
    network = resnet.resnet18()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 1.5)
    return {name: t for name, t in network.state_dict().items() if not name.startswith("fc.")}


def moco(state):
    held = {f"module.encoder_q.{name}": tensor for name, tensor in state.items()}
    return {"arch": "resnet18", "state_dict": held, "epoch": 200}


def detectron2(state):
    arrays = {detectron2_names(18)[name]: tensor.numpy() for name, tensor in state.items()}
    return {"model": arrays, "__author__": "someone"}


def lightning(state):
    held = {f"backbone.{name}": tensor for name, tensor in state.items()}
    parts = {"optimizer": functools.partial(torch.optim.SGD, lr=1)}
    return {"pytorch-lightning_version": "2", "state_dict": held, "hyper_parameters": parts}


FILES = {
    "torchvision.pth": lambda state: state | {"fc.weight": torch.zeros(2, 512)},
    "compiled.pth": lambda state: {f"_orig_mod.{name}": t for name, t in state.items()},
    "moco_v2_800ep.pth.tar": moco,
    "last.ckpt": lightning,
    "detectron2.pkl": detectron2,
}


@pytest.mark.parametrize("name", FILES)
def test_the_files_that_people_have(state, tiny, tmp_path, name):
    held = FILES[name](state)
    if name.endswith(".pkl"):
        (tmp_path / name).write_bytes(pickle.dumps(held))
    else:
        torch.save(held, tmp_path / name)
    start = starting_weights(tiny("moco", None, *RESNET, "BACKBONE.WEIGHTS", str(tmp_path / name)))
    assert list(start.state) == list(build_backbone("resnet18").state_dict())
    assert [key for key in state if not torch.equal(start.state[key], state[key])] == []


def test_a_run_starts_from_them(state, tiny, tmp_path, caplog):
    """At a learning rate of nothing, what comes out is what went in, but for the statistics."""
    torch.save(moco(state), tmp_path / "moco.pth.tar")
    options = ("BACKBONE.WEIGHTS", str(tmp_path / "moco.pth.tar"), "SOLVER.BASE_LR", 1e-30)
    with caplog.at_level("INFO", "densessl"):
        final = train(tiny("moco", tmp_path / "run", *RESNET, *options, "SOLVER.MAX_STEPS", 1))
    saved = torch.load(final, weights_only=True)["backbone"]
    told = torch.load(final, weights_only=True)["pretrain"]
    assert told["start_sha256"] == files.sha256(tmp_path / "moco.pth.tar")
    assert "start_recipe" not in told and told["seed"] == 0 and told["recipe"]
    learned = [name for name in state if name.endswith(("weight", "bias"))]
    for name in learned:
        torch.testing.assert_close(saved[name], state[name], rtol=0, atol=1e-12)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "MoCo-v2 (moco_v2 layout)" in log and "assumed: the file does not say" in log


def test_a_checkpoint_of_ours_is_taken_bit_for_bit(state, tiny, tmp_path):
    normalization = NORMALIZATION | {"channel_order": "RGB"}
    ours = {"backbone": state, "method": "moco", "normalization": normalization, "config": ""}
    ours["pretrain"] = {"recipe": "one", "seed": 3}
    torch.save(ours, tmp_path / "resnet50d.pth")  # its name is its own affair
    start = starting_weights(
        tiny("moco", None, *RESNET, "BACKBONE.WEIGHTS", f"{tmp_path}/resnet50d.pth")
    )
    assert start_facts(f"{tmp_path}/resnet50d.pth")["start_recipe"] == "one"
    assert [key for key in state if not torch.equal(start.state[key], state[key])] == []


@pytest.mark.parametrize("theirs", [BGR, HALVES], ids=["BGR", "other statistics"])
@torch.no_grad()
def test_other_images_change_the_first_layer_only(state, tmp_path, theirs):
    """The same picture, normalised here and there, gives the same features."""
    held = {"backbone": state, "method": "x", "normalization": theirs}
    torch.save(held, tmp_path / "theirs.pth")
    start = starting_state(str(tmp_path / "theirs.pth"), "resnet18", NORMALIZATION, "here")
    networks = [build_backbone("resnet18", norm="BN").eval() for _ in range(2)]
    for network, tensors in zip(networks, (state, start.state), strict=True):
        network.load_state_dict(tensors)
    picture = torch.rand(1, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    fed = []
    for told in (theirs, NORMALIZATION):
        mean, std = (torch.tensor(told[key])[:, None, None] for key in ("mean", "std"))
        ordered = picture.flip(1) if told.get("channel_order") == "BGR" else picture
        fed.append((ordered - mean) / std)
    stems = [n.bn1(n.conv1(x))[..., 2:-2, 2:-2] for n, x in zip(networks, fed, strict=True)]
    torch.testing.assert_close(stems[1], stems[0], rtol=1e-4, atol=1e-4)
    changed = {key for key in state if not torch.equal(start.state[key], state[key])}
    assert changed == {"conv1.weight"} | ({"bn1.running_mean"} if theirs is HALVES else set())
    if theirs is BGR:  # nothing is lost in the padding either
        levels = [n(x)["layer4"] for n, x in zip(networks, fed, strict=True)]
        torch.testing.assert_close(levels[1], levels[0], rtol=1e-4, atol=1e-4)


def test_a_vits_first_layer_takes_the_difference_exactly(tmp_path):
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    network = timm.create_model("vit_tiny_patch16_224", num_classes=0).eval()
    held = {"backbone": network.state_dict(), "method": "x", "normalization": HALVES}
    torch.save(held, tmp_path / "vit.pth")
    start = starting_state(str(tmp_path / "vit.pth"), "vit_tiny", NORMALIZATION, "here")
    picture = torch.rand(1, 3, 224, 224)
    outputs = []
    for told, tensors in ((HALVES, held["backbone"]), (NORMALIZATION, start.state)):
        network.load_state_dict(tensors)
        mean, std = (torch.tensor(told[key])[:, None, None] for key in ("mean", "std"))
        with torch.no_grad():
            outputs.append(network((picture - mean) / std))
    torch.testing.assert_close(outputs[1], outputs[0], rtol=1e-4, atol=1e-4)


def test_msras_stride_is_said(tmp_path):
    torch.manual_seed(0)
    tensors = resnet.resnet50().state_dict()
    torch.save(tensors, tmp_path / "resnet50_msra-5891d200.pth")
    path = str(tmp_path / "resnet50_msra-5891d200.pth")
    start = starting_state(path, "resnet50", NORMALIZATION, "here")
    assert "the stride in the 1x1" in start.summary and "takes RGB now" in start.summary
    want = tensors["conv1.weight"].flip(1) * (
        torch.tensor(NORMALIZATION["std"])[:, None, None] * 255
    )
    torch.testing.assert_close(start.state["conv1.weight"], want)


@pytest.mark.parametrize(
    "held, says",
    [
        ("resnet50", "holds a ResNet-50, which does not fit a resnet18; give BACKBONE.NAME resne"),
        ("resnet34", "holds a ResNet-34, which does not fit a resnet18; give BACKBONE.NAME resne"),
        ({"epoch": 3}, "holds no ViT and no ResNet"),
        ({"state_dict": {"w": torch.ones(2)}, "args": print}, r"pickled code \(builtins.print\)"),
    ],
)
def test_what_does_not_fit_is_refused_before_any_work(tiny, tmp_path, capsys, held, says):
    if isinstance(held, str):
        held = getattr(resnet, held)().state_dict()
    torch.save(held, tmp_path / "c.pth")
    cfg = tiny("moco", tmp_path / "run", *RESNET, "BACKBONE.WEIGHTS", str(tmp_path / "c.pth"))
    with pytest.raises(InputError, match=says) as refusal:
        train(cfg)
    assert str(refusal.value).startswith(f"BACKBONE.WEIGHTS: {tmp_path}/c.pth")
    assert str(refusal.value).count("c.pth") == 1 and not (tmp_path / "run").exists()


def test_pretraining_knows_the_readers_and_not_the_transfer():
    """Between the two packages only files pass."""
    root = Path(pretrain.__file__).parents[1]
    sources = [*(root / "pretrain").rglob("*.py"), *(root / "weight_files").rglob("*.py")]
    imports = re.compile(r"^\s*(from|import) d2_transfer", re.MULTILINE)
    assert len(sources) > 50
    assert [path for path in sources if imports.search(path.read_text(encoding="utf-8"))] == []
