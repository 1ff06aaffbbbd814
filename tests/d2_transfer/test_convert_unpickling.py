"""Files that hold objects: those of known programs are data, all others are refused by name."""

import argparse
import collections
import datetime
import functools
import io
import os
import pathlib
import pickle
import random
import sys
import tarfile
import types
import zipfile

import numpy
import pytest
import torch

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer.convert import convert
from densessl.weight_files.unpickle import HISTORY, Held

from .read_twice import read_checkpoint

TENSOR = torch.arange(6.0).reshape(2, 3)


@pytest.fixture(params=["zip", "legacy", "protocol 4", "plain"])
def save(request, tmp_path):
    """``save(object)``: the path of a file of each kind that PyTorch users write."""

    def write(held):
        path = tmp_path / "c.pth"
        if request.param == "plain":
            path.write_bytes(pickle.dumps(held))
        else:
            options = {"pickle_protocol": 4} if request.param == "protocol 4" else {}
            zipped = request.param != "legacy"
            torch.save(held, path, _use_new_zipfile_serialization=zipped, **options)
        return path

    return write


# What is read -------------------------------------------------------------------------------------


def test_tensors_of_every_kind(save):
    base = torch.arange(24.0)
    held = {
        "plain": TENSOR,
        "transposed": TENSOR.t(),
        "view": base[5:11].reshape(2, 3),
        "parameter": torch.nn.Parameter(TENSOR),
        "empty": torch.empty(0, 3),
        "scalar": torch.tensor(7),
        **{str(t): torch.ones(2, dtype=t) for t in (torch.half, torch.bfloat16, torch.bool)},
        **{str(t): torch.ones(2, dtype=t) for t in (torch.float64, torch.int32, torch.uint8)},
    }
    read = read_checkpoint(save(collections.OrderedDict(held)))
    assert list(read) == list(held)
    for name, tensor in held.items():
        assert torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype, name
        assert not read[name].requires_grad


def test_arguments_and_settings_are_their_fields(save):
    arguments = argparse.Namespace(arch="resnet50", lr=0.1, out=pathlib.PurePosixPath("/tmp/x"))
    held = read_checkpoint(save({"args": arguments, "model": {"w": TENSOR}, "epoch": 3}))
    assert torch.equal(held["model"]["w"], TENSOR) and held["epoch"] == 3
    args = held["args"]
    assert type(args).__mro__[1] is Held and args.pickled == "argparse.Namespace"
    assert args["arch"] == "resnet50" and args["lr"] == 0.1


def test_the_objects_of_real_programs(save):
    omegaconf = pytest.importorskip("omegaconf")
    yacs = pytest.importorskip("yacs.config")
    optimizer = torch.optim.SGD([torch.nn.Parameter(TENSOR)], lr=0.1, momentum=0.9)
    held = {
        "omegaconf": omegaconf.OmegaConf.create({"optimizer": {"lr": 0.1}, "steps": [1, 2]}),
        "yacs": yacs.CfgNode({"MODEL": {"DEPTH": 50}}),
        "defaultdict": collections.defaultdict(list, {"a": [1]}),
        "deque": collections.deque([1, 2], maxlen=3),
        "date": datetime.datetime(2021, 3, 4),
        "simple": types.SimpleNamespace(a=1),
        "numpy": [numpy.float32(2.5), numpy.int64(3), numpy.arange(3.0)],
        "plain": {"set": {1, 2}, "bytes": b"\x00\xff", "complex": 1j, "none": None},
        "optimizer": optimizer.state_dict(),
        "scheduler": torch.optim.lr_scheduler.StepLR(optimizer, 3).state_dict(),
        "w": TENSOR,
    }
    read = read_checkpoint(save(held))
    assert torch.equal(read["w"], TENSOR)
    assert read["yacs"]["MODEL"]["DEPTH"] == 50 and read["defaultdict"]["a"] == [1]
    assert read["deque"].values_in_order == [1, 2] and read["simple"]["a"] == 1
    assert read["numpy"][:2] == [2.5, 3] and read["numpy"][2].tolist() == [0, 1, 2]
    assert read["plain"] == held["plain"] and read["optimizer"] == held["optimizer"]
    assert isinstance(read["omegaconf"], Held) and read["omegaconf"].pickled.startswith("omegaconf")


@pytest.fixture
def history(monkeypatch):
    """mmengine's class of a logged value, which is pickled with its methods by ``getattr``."""

    class HistoryBuffer:
        def __init__(self, values):
            self.log_history = values

        def __getstate__(self):
            return {"log_history": self.log_history, "statistics_methods": [HistoryBuffer.min]}

        @staticmethod
        def min():
            raise AssertionError("ran")

    module, name = HISTORY.rsplit(".", 1)
    HistoryBuffer.__module__, HistoryBuffer.__qualname__ = module, name
    HistoryBuffer.min.__module__, HistoryBuffer.min.__qualname__ = module, f"{name}.min"
    for part in ("mmengine", "mmengine.logging", module):
        monkeypatch.setitem(sys.modules, part, types.ModuleType(part))
    setattr(sys.modules[module], name, HistoryBuffer)
    return HistoryBuffer


def test_mmengines_training_history(history, save):
    held = {"message_hub": {"loss": history(numpy.array([[0.5, 1.0]]))}, "w": TENSOR}
    read = read_checkpoint(save(held))
    assert read["message_hub"]["loss"]["log_history"].tolist() == [[0.5, 1.0]]
    assert torch.equal(read["w"], TENSOR)


def test_a_file_of_python_2(tmp_path):
    """numpy arrays whose bytes are text, as in the model zoos of 2018."""
    array = numpy.array([1.5, -2.0], "<f8")
    dtype = (
        b"cnumpy\ndtype\n(U\x02f8K\x00K\x01tR(K\x03U\x01<NNN"
        + 2 * b"J\xff\xff\xff\xff"
        + b"K\x00tb"
    )
    data = b"\x80\x02}U\x01ac" + b"numpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
    data += b"U\x01btR(K\x01K\x02\x85" + dtype + b"\x89U\x10" + array.tobytes() + b"tbs."
    (tmp_path / "c.pkl").write_bytes(data)
    assert read_checkpoint(tmp_path / "c.pkl")["a"].tolist() == [1.5, -2.0]


class Trap:
    """A class of the user's own, which notes that it was used."""

    ran = False

    def __init__(self):
        type(self).ran = True

    def __setstate__(self, state):
        type(self).ran = True

    def collate(self):
        raise AssertionError("ran")


def test_lightnings_hyper_parameters_are_data(save):
    """Classes, partials, transforms, networks: whatever a module was made with."""
    from torchvision import models, transforms

    trap = Trap()
    steps = [transforms.RandomResizedCrop(224), transforms.ToTensor()]
    hyper_parameters = {
        "optimizer": torch.optim.AdamW,
        "partial": functools.partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "transform": transforms.Compose([*steps, transforms.Normalize([0.5] * 3, [0.25] * 3)]),
        "activation": torch.nn.GELU,
        "function": torch.nn.functional.relu,
        "network": models.resnet18().layer1,
        "own": trap,
        "own class": Trap,
        "method": trap.collate,
        "in a set": {Trap, torch.nn.ReLU},
        "generator": numpy.random.default_rng(0),
        "lr": 0.3,
    }
    held = {
        "pytorch-lightning_version": "2.1.2",
        "state_dict": {"w": TENSOR},
        "hyper_parameters": hyper_parameters,
    }
    Trap.ran = False
    read = read_checkpoint(save(held))
    assert torch.equal(read["state_dict"]["w"], TENSOR) and not Trap.ran
    told = read["hyper_parameters"]
    assert told.keys() == hyper_parameters.keys() and told["lr"] == 0.3
    assert told["partial"].pickled == "functools.partial" and told["own"].pickled.endswith("Trap")
    assert told["transform"]["transforms"][2]["mean"] == [0.5] * 3
    assert issubclass(told["own class"], Held) and issubclass(told["optimizer"], Held)


def test_a_lightning_checkpoint_with_objects_is_converted(random_resnet, tmp_path, capsys):
    state = {f"backbone.{name}": tensor for name, tensor in random_resnet(18).items()}
    held = {
        "epoch": 399,
        "pytorch-lightning_version": "2.1.2",
        "state_dict": state | {"classifier.weight": TENSOR},
        "hyper_parameters": {"optimizer": functools.partial(torch.optim.SGD, lr=1), "own": Trap},
        "callbacks": {"own": Trap},
    }
    torch.save(held, tmp_path / "last.ckpt")
    report = convert(tmp_path / "last.ckpt", tmp_path / "w.pkl")
    assert (report.layout, report.tensors) == ("solo_learn", 120)
    assert densessl.main(["inspect", str(tmp_path / "last.ckpt")]) == 0
    assert "progress     epoch 399" in capsys.readouterr().out


def test_a_full_checkpoint_with_arguments_is_converted(our_checkpoint, tmp_path):
    """PixPro's and DINO's training files hold the arguments of the run as an object."""
    state = torch.load(our_checkpoint(tmp_path / "c.pth"), weights_only=True)["backbone"]
    file = {
        "opt": argparse.Namespace(arch="resnet18", epochs=400),
        "model": {f"module.encoder.{name}": tensor for name, tensor in state.items()},
    }
    torch.save(file, tmp_path / "current.pth", _use_new_zipfile_serialization=False)
    report = convert(tmp_path / "current.pth", tmp_path / "w.pkl")
    assert (report.layout, report.tensors) == ("pixpro", 120)


# What is refused ----------------------------------------------------------------------------------


class Call:
    """Pickles as a call of ``function``."""

    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


MALICE = {
    r"(posix|nt)\.system": lambda mark: Call(os.system, f"touch {mark}"),
    r"builtins\.eval": lambda mark: Call(eval, f"open({str(mark)!r}, 'w')"),
    r"_?io\.open": lambda mark: Call(open, str(mark), "w"),
    r"builtins\.getattr": lambda mark: Call(getattr, Call(argparse.Namespace), "__class__"),
    r"builtins\.__import__": lambda mark: Call(getattr, Call(__import__, "os"), "system"),
    r"torch\.hub\.load": lambda mark: Call(torch.hub.load, str(mark), "x"),
    r"functools\.partial": lambda mark: Call(functools.partial, os.system),
    r"torch\.nn\.modules\.linear\.Linear": lambda mark: torch.nn.Linear(2, 2),
}


STAND_INS = (r"torch\.nn\.modules\.linear\.Linear", r"builtins\.getattr")  # run nothing


@pytest.mark.parametrize("name", MALICE)
def test_pickled_code_is_refused_by_name_and_not_run(save, tmp_path, capsys, name):
    mark = tmp_path / "ran"
    path = save({"state_dict": {"w": TENSOR}, "args": MALICE[name](mark)})
    with pytest.raises(InputError, match=rf"pickled code \({name}\), which will not be unpickled"):
        read_checkpoint(path)
    assert densessl.main(["convert", str(path), "-o", str(tmp_path / "w.pkl")]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and str(path) in said and "Traceback" not in said
    assert not mark.exists()


@pytest.mark.parametrize("name", [name for name in MALICE if name not in STAND_INS])
def test_what_runs_something_is_refused_in_hyper_parameters_too(save, tmp_path, name):
    mark = tmp_path / "ran"
    lightning = {"pytorch-lightning_version": "2.1", "state_dict": {"w": TENSOR}}
    path = save(lightning | {"hyper_parameters": {"x": MALICE[name](mark)}})
    with pytest.raises(InputError, match=r"pickled code .*(system|eval|open|__import__|hub\.load)"):
        read_checkpoint(path)
    assert not mark.exists()


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_every_protocol_of_a_pkl(tmp_path, protocol):
    bad = {"model": {}, "__author__": "x", "densessl": Call(open, str(tmp_path / "ran"), "w")}
    (tmp_path / "w.pkl").write_bytes(pickle.dumps(bad, protocol))
    with pytest.raises(InputError, match=r"pickled code \(_?io\.open\)"):
        read_checkpoint(tmp_path / "w.pkl")
    assert not (tmp_path / "ran").exists()


def test_a_way_through_the_attributes_of_a_known_name(tmp_path):
    """Protocol 4 may ask for 'Namespace.__init__.__globals__' in one word."""
    for module, name in (
        ("argparse", "Namespace.__init__.__globals__"),
        ("collections", "OrderedDict.__init__"),
        ("numpy", "ndarray.__class__"),
        ("numpy.dtypes", "Float64DType"),
        ("torch", "hub.load"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
    ):
        words = b"".join(b"\x8c" + bytes([len(w)]) + w.encode() for w in (module, name))
        (tmp_path / "c.pkl").write_bytes(b"\x80\x04" + words + b"\x93.")
        with pytest.raises(InputError, match=rf"pickled code \({module}\.{name}\)"):
            read_checkpoint(tmp_path / "c.pkl")


def test_code_within_torchs_own_pickled_storages(tmp_path):
    """A plain pickle of a tensor holds bytes that are a torch.save file once more."""
    inner = io.BytesIO()
    bad = Call(open, str(tmp_path / "ran"), "w")
    torch.save(bad, inner, _use_new_zipfile_serialization=False)
    outer = Call(torch.storage._load_from_bytes, inner.getvalue())
    (tmp_path / "c.pkl").write_bytes(pickle.dumps({"w": outer}))
    with pytest.raises(InputError, match=r"pickled code \(_?io\.open\)"):
        read_checkpoint(tmp_path / "c.pkl")
    assert not (tmp_path / "ran").exists()


def test_an_array_of_objects_over_bytes_of_the_files_choice(tmp_path):
    """numpy itself makes one, and follows the bytes as pointers: a crash, or worse."""
    for dtype in (Call(numpy.dtype, "O8", False, True), Call(numpy.dtype, "V8"), "O"):
        array = Call(numpy.ndarray, (1,), dtype, b"A" * 8)
        (tmp_path / "c.pkl").write_bytes(pickle.dumps({"w": array}))
        with pytest.raises(InputError):
            read_checkpoint(tmp_path / "c.pkl")
    for array in (numpy.array([None]), numpy.zeros(2, "i4,f4"), numpy.zeros(2, "M8[s]")):
        for protocol in (2, 5):
            (tmp_path / "c.pkl").write_bytes(pickle.dumps({"w": array}, protocol))
            with pytest.raises(InputError, match="an array of .*which is not read"):
                read_checkpoint(tmp_path / "c.pkl")


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_as_numpy_pickles_them(tmp_path, protocol):
    arrays = {
        "rows": numpy.arange(6, dtype="f4").reshape(2, 3),
        "columns": numpy.asfortranarray(numpy.arange(6, dtype="f8").reshape(2, 3)),
        "swapped": numpy.arange(3, dtype=">i4"),
        "half": numpy.ones((2, 0, 3), "f2"),
        "zero-dimensional": numpy.array(7),
        "boolean": numpy.array([True, False]),
        "text": numpy.array(["a", "bc"]),
        "scalar": numpy.float64(2.5),
        "counter": numpy.uint8(3),
    }
    (tmp_path / "c.pkl").write_bytes(pickle.dumps(arrays, protocol))
    read = read_checkpoint(tmp_path / "c.pkl")
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype.newbyteorder("="), name
        assert read[name].shape == array.shape, name
        assert numpy.array_equal(read[name], array), name
    assert torch.equal(torch.from_numpy(read["rows"]), torch.from_numpy(arrays["rows"]))


def test_a_tar_archive_is_not_unpickled(tmp_path):
    """torch.save wrote tar files until 2017; what they hold is not looked at."""
    with tarfile.open(tmp_path / "c.pth.tar", "w") as archive:
        for name in ("storages", "tensors", "pickle"):
            data = pickle.dumps(Call(open, str(tmp_path / "ran"), "w"))
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    with pytest.raises(InputError, match="is no checkpoint but a tar archive"):
        read_checkpoint(tmp_path / "c.pth.tar")
    assert not (tmp_path / "ran").exists()


def test_a_tensor_beyond_its_storage(tmp_path):
    class Beyond:
        def __reduce__(self):
            rebuild, (storage, *_) = TENSOR.__reduce_ex__(2)
            return rebuild, (storage, 4, (2, 3), (3, 1), False, collections.OrderedDict())

    torch.save({"w": Beyond()}, tmp_path / "c.pth")
    with pytest.raises(InputError, match=r"damaged.*out of bounds"):
        read_checkpoint(tmp_path / "c.pth")


def test_an_old_file_without_the_values_of_a_tensor(tmp_path):
    torch.save({"w": TENSOR}, tmp_path / "c.pth", _use_new_zipfile_serialization=False)
    data = (tmp_path / "c.pth").read_bytes()
    end = len(data) - 8 - TENSOR.nbytes  # of the list of storages, which one value now replaces
    start = data.rindex(b"\x80\x02]", 0, end)
    for cut in (data[:start] + pickle.dumps([], 2), data[:end], data[: end + 4], data[:-1]):
        (tmp_path / "cut.pth").write_bytes(cut)
        with pytest.raises(InputError, match="damaged or truncated"):
            read_checkpoint(tmp_path / "cut.pth")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_no_bytes_end_in_another_error(tmp_path, kind):
    """150 files with a few random bytes changed: each is read, or refused as one message."""
    held = {"args": argparse.Namespace(a=1), "w": TENSOR, "n": numpy.float64(2.0)}
    path, generator = tmp_path / "c.pth", random.Random(0)
    if kind == "pickle":
        path.write_bytes(pickle.dumps(held, 2))
    else:
        torch.save(held, path, _use_new_zipfile_serialization=kind == "zip")
    data, refused = path.read_bytes(), 0
    for _ in range(150):
        changed = bytearray(data)
        for _ in range(generator.randint(1, 8)):
            changed[generator.randrange(len(changed))] = generator.randrange(256)
        path.write_bytes(changed[: generator.randint(1, 2 * len(changed))])
        try:
            read_checkpoint(path)
        except InputError as error:
            refused += 1
            assert "\n" not in str(error) and str(path) in str(error)
    assert refused > 100


@pytest.mark.parametrize(
    "put",
    [
        b"r\xff\xff\xff\x7f",
        b"p2147483647\n",
        b"p2_147_483_647\n",
        b"p +2147483647\n",
        b"p99999999999999999999\n",
    ],
)
@pytest.mark.parametrize("zipped", [False, True])
def test_an_object_with_too_high_a_number_takes_no_memory(tmp_path, put, zipped):
    """Python's unpickler would make room for twice as many: 32 GB."""
    data, path = pickle.dumps({"a": 1.0}, 2)[:-1] + put + b".", tmp_path / "c.pth"
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", data)
            archive.writestr("archive/version", "3")
    else:
        path.write_bytes(data)
    with pytest.raises(InputError, match="it numbers an object"):
        read_checkpoint(path)
