"""The one file that knows the difference between Detectron2 0.5 (PyPI) and the official main.

0.5 is what installs anywhere: the official Python sources without the compiled ops, written for the
numpy, Pillow and torch of 2021. ``setup()`` must run before the first ``import detectron2``:

    from . import compat

    compat.setup()
    from detectron2.modeling import build_model
"""

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Collection
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from typing import Any

from densessl.core import errors
from densessl.core.install import CHECKOUT, detectron2

from . import projects

OLD_CALLS = (  # torch's remarks on calls in 0.5's own code, which a user can do nothing about
    "torch.meshgrid: in an upcoming release",
    "Creating a tensor from a list of numpy.ndarrays is extremely slow",
    r"`torch\.jit\.script` is deprecated",
)


@lru_cache
def setup() -> None:
    """Make ``import detectron2`` work, whichever of the two is installed; cheap to call again.

    Raises EnvironmentLacks when Detectron2 or torch is missing, or when its compiled ops were built
    for another torch. Does not import Detectron2 itself (seconds) where there are no compiled ops.
    """
    require_installed()
    _restore_old_names()
    for begin in OLD_CALLS:
        warnings.filterwarnings("ignore", begin)
    if not has_compiled_ops():
        sys.modules.setdefault("detectron2._C", _no_compiled_ops())
        return
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        raise errors.EnvironmentLacks(
            f"Detectron2's compiled ops do not load ({error}): they were built for another torch; "
            f"fix it with: {'make detectron2-main' if CHECKOUT else detectron2()}"
        ) from None


def require_installed() -> None:
    """EnvironmentLacks unless there is a torch and a Detectron2 (found, not imported)."""
    for name in ("torch", "detectron2"):
        if not is_installed(name):
            raise errors.EnvironmentLacks(f"{name} is not installed; fix it with: {detectron2()}")


def has_compiled_ops() -> bool:
    """Whether Detectron2's own C++ extension is installed (found on disk, not imported)."""
    if not is_installed("detectron2"):
        return False
    return PathFinder.find_spec("detectron2._C", _folders()) is not None


def _folders() -> list[str]:
    """Where the package lies (found, not imported)."""
    spec = importlib.util.find_spec("detectron2")
    return list(spec and spec.submodule_search_locations or [])


def is_installed(name: str) -> bool:
    """Whether there is a package of this name (found, not imported)."""
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):  # a finder that refuses; a module put in place by hand
        return False


def version() -> str:
    """Detectron2's own version: '0.5', '0.6', …"""
    setup()
    import detectron2

    return detectron2.__version__


def is_release() -> bool:
    """Whether this is the 0.5 of PyPI rather than the official main."""
    return version() == "0.5"


def _restore_old_names() -> None:
    """Names that 0.5 (and cityscapesScripts) use and numpy 1.24–2.4 and Pillow 10 removed."""
    import numpy
    from PIL import Image

    old = {"int": int, "float": float, "bool": bool, "str": str, "object": object}
    for name, value in old.items():
        if name not in vars(numpy):  # hasattr() would warn, and is what old numpy answers with
            setattr(numpy, name, value)
    vars(numpy)["in1d"] = numpy.isin  # noqa: NPY201  (numpy 2.0 to 2.3 still have it, and warn)
    if not hasattr(Image, "LINEAR"):
        vars(Image)["LINEAR"] = Image.Resampling.BILINEAR


def _no_compiled_ops() -> types.ModuleType:
    """What stands for ``detectron2._C``: importable, and a clear error when an op is called.

    Only rotated boxes, deformable convolution and the C++ COCO evaluator call one.
    """
    module = types.ModuleType("detectron2._C", "Detectron2's compiled ops are not installed.")
    module.__spec__ = ModuleSpec("detectron2._C", None)
    for name in ("get_compiler_version", "get_cuda_version"):  # for collect_env's table
        setattr(module, name, lambda: "no compiled ops")
    vars(module)["has_cuda"] = lambda: False

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def op(*args, **kwargs):
            raise errors.EnvironmentLacks(
                f"Detectron2's compiled op '{name}' is not in the release on PyPI; "
                f"fix it with: {'make detectron2-main' if CHECKOUT else detectron2()}"
            )

        return op

    vars(module)["__getattr__"] = missing
    return module


# Configs, schedulers, trainer -------------------------------------------------------------------


def get_cfg(named: Collection[str] = ()):
    """Detectron2's default config with DenseSSL's keys, and main's bias decay in both versions.

    ``named``: projects whose options it has, too, and whose models are registered.

    0.5 fixes SOLVER.WEIGHT_DECAY_BIAS at 1e-4, which then ignores WEIGHT_DECAY and also decays the
    biases of normalisation layers (WEIGHT_DECAY_NORM notwithstanding). None, main's default, means
    'as the weights of the same layer'; 0.5's optimizer builder understands it too.
    """
    setup()
    from detectron2.config import get_cfg as detectron2_get_cfg

    from .config import add_options

    cfg = detectron2_get_cfg()
    cfg.SOLVER.WEIGHT_DECAY_BIAS = None
    add_options(cfg)
    for name in named:
        projects.load(name, cfg)
    return cfg


def default_options(named: Collection[str] = ()):
    """The options that :func:`get_cfg` has, without importing Detectron2 and torch (seconds)."""
    from fvcore.common.config import CfgNode

    from .config import add_options

    package = Path(_folders()[0])
    cfg = projects.run_alone(package / "config" / "defaults.py", CfgNode)["_C"].clone()
    cfg.SOLVER.WEIGHT_DECAY_BIAS = None
    add_options(cfg)
    for name in named:
        projects.add_options(name, cfg, package)
    return cfg


def lr_scheduler_class() -> type:
    """torch's scheduler class of the name by which Detectron2 0.5 knows whose state to save.

    Since torch 2.0 it is a subclass of LRScheduler, by which Detectron2's main does.
    """
    from torch.optim import lr_scheduler

    return getattr(lr_scheduler, "_LRScheduler", None) or lr_scheduler.LRScheduler


def default_trainer(with_amp: type) -> type:
    """Detectron2's DefaultTrainer, able to train in several processes on the CPU, and with AMP by
    ``with_amp``, a subclass of Detectron2's AMPTrainer, which wants CUDA."""
    defaults = _engine_defaults()
    vars(defaults)["AMPTrainer"] = with_amp  # DefaultTrainer.__init__ calls it by this name
    return defaults.DefaultTrainer


@lru_cache
def _engine_defaults() -> types.ModuleType:
    """Detectron2's, with a ``create_ddp_model`` that takes a model on the CPU, too.

    Both versions pass ``device_ids=[local rank]``, which DistributedDataParallel refuses there.
    """
    setup()
    from detectron2.engine import defaults

    original = defaults.create_ddp_model

    def on_any_device(model, **kwargs):
        on_cpu = next(model.parameters()).device.type == "cpu"
        if on_cpu:
            kwargs.setdefault("device_ids", None)
        made = original(model, **kwargs)
        if on_cpu:
            sort_buckets(made)
        return made

    defaults.create_ddp_model = on_any_device  # DefaultTrainer.__init__ calls it by this name
    return defaults


def sort_buckets(model) -> None:
    """Have DDP sort its gradients into buckets now, not after its first step.

    With three processes and more other buckets are another order of sums, and a trial that resumes
    would differ from the undisturbed one in its first step. Nothing happens without DDP.
    """
    if reducer := getattr(model, "reducer", None):
        reducer._push_all_rebuilt_params()
        reducer._rebuild_buckets()


def create_local_groups(machines: int, processes: int) -> None:
    """Tell ``detectron2.utils.comm`` which ranks share a machine; call it in every process."""
    from detectron2.utils import comm

    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
        return
    import torch.distributed as dist

    for machine in range(machines):  # every process makes every group
        group = dist.new_group(list(range(machine * processes, (machine + 1) * processes)))
        if dist.get_rank() // processes == machine:
            comm._LOCAL_PROCESS_GROUP = group
