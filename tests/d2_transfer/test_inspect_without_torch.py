"""``inspect`` without torch: what numpy stands in for, and what is left to torch."""

import argparse
import io
import pickle
import random
import re

import numpy
import pytest
import torch

from densessl.core.errors import InputError
from densessl.d2_transfer.convert import inspection
from densessl.weight_files import reading, safetensors
from densessl.weight_files.keys import to_detectron2
from densessl.weight_files.without_torch import LIBRARY, NeedsTorch, as_tensor, in_torch

from .read_twice import read_checkpoint

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)


@pytest.fixture(scope="module")
def resnet(random_resnet):
    """A ResNet-18's shapes over one value each: 512 bytes a tensor in a file."""
    return {name: t.new_ones(()).expand(t.shape) for name, t in random_resnet(18).items()}


def prefixed(state: dict, prefix: str) -> dict:
    return {prefix + name: tensor for name, tensor in state.items()}


def seen(path, library, **options) -> tuple:
    """Rows and the reason why no backbone can be taken, read by one library alone."""
    asked = {"source": "auto", "branch": None} | options
    rows, problem = inspection._examined(path, **asked, library=library)
    return rows, str(problem)


def same(path, **options) -> tuple:
    """What is seen without torch, which is what is seen with it."""
    found = seen(path, LIBRARY, **options)
    assert found == seen(path, None, **options)
    return found


def files(resnet: dict) -> dict:
    """What people bring, by the name of the file."""
    of_moco = prefixed(resnet, "module.encoder_q.") | prefixed(resnet, "module.encoder_k.")
    other = {n: t * 2 if n == "conv1.weight" else t for n, t in resnet.items()}
    caffe = {"conv1_w": numpy.ones((64, 3, 7, 7), "f4"), "res2_0_branch2a_w": numpy.ones((2, 2))}
    detector = {f"backbone.{to_detectron2(name)}": t for name, t in resnet.items()}
    mean = {"pixel_mean": torch.tensor([103.5, 116.25, 123.5], dtype=torch.bfloat16)}
    return {
        "lightning.ckpt": {"state_dict": resnet, "hyper_parameters": {"lr": 0.1}, "epoch": 3},
        "moco.pth.tar": {"state_dict": of_moco, "args": argparse.Namespace(arch="resnet18")},
        "byol.pth": {
            "state_dict": prefixed(resnet, "backbone.") | prefixed(resnet, "online_net.0.")
        },
        "changed.pth": {
            "state_dict": prefixed(resnet, "backbone.") | prefixed(other, "online_net.0.")
        },
        "counters.pth": {n: t for n, t in resnet.items() if not n.endswith("batches_tracked")},
        "detectron2.pth": {"model": detector | mean | {"pixel_std": torch.ones(3)}},
        "parameter.pth": {"w": torch.nn.Parameter(torch.ones(2, 2)), "type": torch.half},
        "uint16.pth": {"w": torch.zeros(2, dtype=torch.uint16)},
        "tensor.pth": torch.zeros(2),
        "caffe.pkl": {"blobs": caffe},
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "protocol 4"])
def test_what_is_seen_is_what_torch_sees(kind, resnet, tmp_path):
    for name, held in files(resnet).items():
        options = {"pickle_protocol": 4} if kind == "protocol 4" else {}
        torch.save(held, tmp_path / name, _use_new_zipfile_serialization=kind == "zip", **options)
        rows, _ = same(tmp_path / name)
        assert rows[0][0] == "file"
    rows = dict(same(tmp_path / "moco.pth.tar", branch="key")[0])
    assert rows["backbone"].endswith("11,176,512 parameters: state_dict:module.encoder_k.*")


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_arrays_of_caffe2(protocol, resnet, tmp_path):
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(files(resnet)["caffe.pkl"], protocol))
    _, problem = same(tmp_path / "c.pkl")
    assert "layer1 to layer4 have" in problem


def test_texts_in_the_place_of_weights(resnet, tmp_path):
    """Once an error of torch's, with its traceback."""
    arrays = {str(to_detectron2(name)): t.numpy() for name, t in resnet.items()}
    text = numpy.full(64, "a")
    held = {"model": arrays | {"stem.conv1.norm.weight": text, "stem.conv1.norm.bias": text}}
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(held))
    assert "bn1.weight is a" in same(tmp_path / "c.pkl")[1]


def test_safetensors(resnet, tmp_path):
    stream = io.BytesIO()
    state = {n: t.contiguous() for n, t in resnet.items() if n.startswith(("conv1", "bn1"))}
    safetensors.write(stream, state | {"empty": torch.zeros(0, 3)}, {"made": "here"})
    (tmp_path / "c.safetensors").write_bytes(stream.getvalue())
    rows, _ = same(tmp_path / "c.safetensors")
    assert dict(rows)["holds"].startswith("7 tensors")


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1.0])
def test_what_is_not_finite_is_seen_in_every_type(dtype, value, resnet, tmp_path):
    changed = {n: t.to(dtype) if t.is_floating_point() else t for n, t in resnet.items()}
    changed["layer2.0.bn1.bias"] = torch.tensor([0.5] * 127 + [value], dtype=dtype)
    torch.save(changed, tmp_path / "c.pth")
    rows, problem = same(tmp_path / "c.pth")
    assert ("layer2.0.bn1.bias holds NaN or infinity" in problem) is (value != 1)
    notes = [text for label, text in rows if label == "note"]
    if value == 1 and dtype != torch.float32:
        assert notes[0].endswith(f"tensors were {str(dtype)[6:]}, and are float32 now")


def test_what_float32_cannot_hold_and_what_is_no_number(resnet, tmp_path):
    for value in (torch.tensor([1e39] * 64, dtype=torch.float64), torch.ones(64, dtype=int)):
        torch.save(resnet | {"bn1.weight": value}, tmp_path / "c.pth")
        assert "bn1.weight h" in same(tmp_path / "c.pth")[1]


def test_every_bfloat16_is_the_number_that_torch_reads(tmp_path):
    bits = torch.arange(-(2**15), 2**15, dtype=torch.int16).view(torch.bfloat16)
    torch.save({"w": bits.reshape(256, 256).t()}, tmp_path / "c.pth")
    with_torch = read_checkpoint(tmp_path / "c.pth")["w"]
    without = reading.read_checkpoint(tmp_path / "c.pth", LIBRARY)["w"]
    assert repr(without.tolist()) == repr(with_torch.tolist())
    assert numpy.array_equal(
        without.to(LIBRARY.float32).numpy(), with_torch.float().numpy(), equal_nan=True
    )


def test_values_of_arrays_become_torchs():
    for array in (numpy.ones((2, 3), "f4").T, numpy.float64(2.5), numpy.ones(2, ">i4")):
        tensor = as_tensor(array.astype(array.dtype.newbyteorder("=")))
        made = in_torch({"w": tensor.contiguous()})["w"]
        assert made.shape == array.shape and made.tolist() == array.tolist()
        assert str(made.dtype) == str(tensor.dtype)
    with pytest.raises(TypeError, match="no type for an array of <U1"):
        as_tensor(numpy.array(["a"]))


def test_types_are_named_as_torch_names_them():
    torchs = {name: str(t) for name, t in vars(torch).items() if isinstance(t, torch.dtype)}
    ours = {name: str(t) for name, t in vars(LIBRARY).items() if isinstance(t, LIBRARY.dtype)}
    assert torchs.items() <= ours.items()


STRANGE = {
    "float8": {"w": torch.zeros(2, dtype=torch.float8_e5m2)},
    "author": {"state_dict": {"conv1.weight": torch.ones(2)}, "author": torch.ones(2)},
    "config": {"state_dict": {"conv1.weight": torch.ones(2)}, "config": torch.ones(2)},
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_numpy_cannot_stand_in_for_is_left_to_torch(name, tmp_path):
    torch.save(STRANGE[name], tmp_path / "c.pth")
    with pytest.raises(NeedsTorch):
        seen(tmp_path / "c.pth", LIBRARY)
    rows, problem = inspection.examine(tmp_path / "c.pth")
    assert (rows, str(problem)) == seen(tmp_path / "c.pth", None)


@pytest.mark.parametrize("change", [(b"K\x06", b"K\x07"), (b"K\x00K\x02", b"K\x7fK\x02")])
def test_a_view_beyond_its_storage_is_refused_in_torchs_words(change, tmp_path):
    held = {"w": torch.arange(12.0).reshape(2, 6)}
    torch.save(held, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "c.pth").read_bytes()
    assert data.count(change[0]) > 0
    (tmp_path / "c.pth").write_bytes(data.replace(*change))
    with pytest.raises(NeedsTorch):
        reading.read_checkpoint(tmp_path / "c.pth", LIBRARY)
    with pytest.raises(InputError, match="damaged or truncated: setStorage: sizes"):
        inspection.examine(tmp_path / "c.pth")


def without_addresses(error: InputError) -> str:
    return re.sub("0x[0-9a-f]+", "", str(error))


def test_three_hundred_damaged_files(resnet, tmp_path):
    """Pickles of tensors with a few bytes changed: without torch as with it, or left to it."""
    held = {
        "state_dict": {n: t for n, t in resnet.items() if n.startswith("layer1.0")},
        "half": torch.ones(3, dtype=torch.bfloat16),
        "epoch": 3,
    }
    path, generator = tmp_path / "c.pth", random.Random(0)
    torch.save(held, path, _use_new_zipfile_serialization=False)
    data, left = path.read_bytes(), 0
    memo = {at + n for at, byte in enumerate(data) if byte in b"rj" for n in range(5)}
    places = [at for at in range(600, len(data)) if at not in memo]  # their numbers take memory
    for _ in range(300):
        changed = bytearray(data)
        for _ in range(generator.choice((1, 1, 3))):
            changed[generator.choice(places)] ^= 1 << generator.randrange(8)
        path.write_bytes(changed)
        try:
            found = seen(path, LIBRARY)
        except InputError as error:
            found = without_addresses(error)
        except NeedsTorch:
            left += 1
            continue
        try:
            assert found == seen(path, None)
        except InputError as error:
            assert found == without_addresses(error)
    assert left < 150
