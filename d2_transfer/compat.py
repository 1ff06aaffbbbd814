"""The one file that knows the difference between Detectron2 0.5 (PyPI) and the official main.

0.5 is what installs anywhere: the official Python sources without the compiled ops, written for the
numpy, Pillow and torch of 2021. ``setup()`` must run before the first ``import detectron2``:

    from d2_transfer import compat

    compat.setup()
    from detectron2.modeling import build_model
"""

import importlib
import importlib.util
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import lru_cache
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

from console import errors

MEND = "make setup  (the release on PyPI), or make detectron2-main  (the official main, compiled)"
HOST = "127.0.0.1"
TIMEOUT = timedelta(minutes=30)  # of one collective; as detectron2.engine.launch


@lru_cache
def setup() -> None:
    """Make ``import detectron2`` work, whichever of the two is installed; cheap to call again.

    Raises EnvironmentLacks when Detectron2 or torch is missing, or when its compiled ops were built
    for another torch. Does not import Detectron2 itself (seconds) where there are no compiled ops.
    """
    for name in ("torch", "detectron2"):
        if not _installed(name):
            raise errors.EnvironmentLacks(f"{name} is not installed; mend it with: {MEND}")
    _restore_old_names()
    if not has_compiled_ops():
        sys.modules.setdefault("detectron2._C", _no_compiled_ops())
        return
    try:
        importlib.import_module("detectron2._C")
    except ImportError as error:
        raise errors.EnvironmentLacks(
            f"Detectron2's compiled ops do not load ({error}): they were built for another torch; "
            "mend it with: make detectron2-main"
        ) from None


def has_compiled_ops() -> bool:
    """Whether Detectron2's own C++ extension is installed (found on disk, not imported)."""
    if not _installed("detectron2"):
        return False
    folders = importlib.util.find_spec("detectron2").submodule_search_locations
    return PathFinder.find_spec("detectron2._C", list(folders)) is not None


def _installed(name: str) -> bool:
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
    numpy.in1d = numpy.isin  # noqa: NPY201  (numpy 2.0 to 2.3 still have it, and warn)
    if not hasattr(Image, "LINEAR"):
        Image.LINEAR = Image.BILINEAR


def _no_compiled_ops() -> types.ModuleType:
    """What stands for ``detectron2._C``: importable, and a clear error when an op is called.

    Only rotated boxes, deformable convolution and the C++ COCO evaluator call one.
    """
    module = types.ModuleType("detectron2._C", "Detectron2's compiled ops are not installed.")
    module.__spec__ = ModuleSpec("detectron2._C", None)
    module.get_compiler_version = lambda: "no compiled ops"  # for collect_env's table
    module.get_cuda_version = lambda: "no compiled ops"
    module.has_cuda = lambda: False

    def missing(name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def op(*args, **kwargs):
            raise errors.EnvironmentLacks(
                f"Detectron2's compiled op '{name}' is not in the release on PyPI; "
                "mend it with: make detectron2-main"
            )

        return op

    module.__getattr__ = missing
    return module


# Configs, schedulers, trainer -------------------------------------------------------------------


def get_cfg():
    """Detectron2's default config, with the bias decay of main in both versions.

    0.5 fixes SOLVER.WEIGHT_DECAY_BIAS at 1e-4, which then ignores WEIGHT_DECAY and also decays the
    biases of normalisation layers (WEIGHT_DECAY_NORM notwithstanding). None, main's default, means
    'as the weights of the same layer'; 0.5's optimizer builder understands it too.
    """
    setup()
    from detectron2.config import get_cfg as detectron2_get_cfg

    cfg = detectron2_get_cfg()
    cfg.SOLVER.WEIGHT_DECAY_BIAS = None
    return cfg


def lr_scheduler_class() -> type:
    """torch's scheduler class under the name that both versions of Detectron2 subclass."""
    from torch.optim import lr_scheduler

    return getattr(lr_scheduler, "LRScheduler", None) or lr_scheduler._LRScheduler


def create_ddp_model(model, **kwargs):
    """Detectron2's function of this name, also for a model on the CPU.

    Both versions pass ``device_ids=[local rank]``, which DistributedDataParallel refuses there.
    """
    return _engine_defaults().create_ddp_model(model, **kwargs)


def default_trainer() -> type:
    """Detectron2's DefaultTrainer, able to train in several processes on the CPU."""
    return _engine_defaults().DefaultTrainer


@lru_cache
def _engine_defaults() -> types.ModuleType:
    setup()
    from detectron2.engine import defaults

    original = defaults.create_ddp_model

    def on_any_device(model, **kwargs):
        if next(model.parameters()).device.type == "cpu":
            kwargs.setdefault("device_ids", None)
        return original(model, **kwargs)

    defaults.create_ddp_model = on_any_device  # DefaultTrainer.__init__ calls it by this name
    return defaults


def coco_evaluator(dataset: str, output_dir: str | None = None, fast: bool = False, **kwargs):
    """Detectron2's COCOEvaluator for a registered data set.

    ``fast`` takes faster-coco-eval in the place of Detectron2's C++ evaluator; else pycocotools.
    Other keyword arguments are COCOEvaluator's.
    """
    setup()
    from detectron2.evaluation import COCOEvaluator

    kind = _fast_coco_evaluator() if fast else COCOEvaluator
    return kind(dataset, output_dir=output_dir, use_fast_impl=fast, **kwargs)


@lru_cache
def _fast_coco_evaluator() -> type:
    """COCOEvaluator on faster-coco-eval: its own COCO class and its own COCOeval."""
    from detectron2.evaluation import coco_evaluation

    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError:
        raise errors.EnvironmentLacks(
            "faster-coco-eval is not installed; mend it with: make setup"
        ) from None

    class FastCOCOEvaluator(coco_evaluation.COCOEvaluator):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self._coco_api = COCO(self._metadata.json_file)

        def _eval_predictions(self, *args, **kwargs):
            compiled = coco_evaluation.COCOeval_opt
            coco_evaluation.COCOeval_opt = COCOeval_faster  # what use_fast_impl=True runs
            try:
                super()._eval_predictions(*args, **kwargs)
            finally:
                coco_evaluation.COCOeval_opt = compiled

    return FastCOCOEvaluator


# Several processes ------------------------------------------------------------------------------


def launch(function: Callable, processes: int, args: tuple = (), cuda: bool | None = None) -> None:
    """Run ``function(*args)`` in ``processes`` processes of this machine, joined by Detectron2's
    ``comm``: NCCL with a GPU each, gloo on the CPU. One process: a plain call.

    In place of ``detectron2.engine.launch``, which asserts CUDA (0.5) and whose children import
    Detectron2 before anything can call ``setup()``. ``function`` must be importable by name. An
    error of DenseSSL in a child is raised here as the same error. SIGTERM goes on to the children,
    which also get a terminal's Ctrl-C themselves; either way this waits for them, so that they can
    save. StoppedEarly must be raised by every process: all wait for the slowest to have saved.
    """
    if processes == 1:
        function(*args)
        return
    import torch
    import torch.multiprocessing as multiprocessing

    cuda = torch.cuda.is_available() if cuda is None else cuda
    if cuda and processes > torch.cuda.device_count():
        raise errors.InputError(
            f"{processes} processes need as many GPUs; this machine has {torch.cuda.device_count()}"
        )
    said = multiprocessing.get_context("spawn").SimpleQueue()
    # This process keeps the store: a port found free may be taken before a child binds it.
    store = torch.distributed.TCPStore(HOST, 0, is_master=True, wait_for_workers=False)
    arguments = (function, processes, store.port, "nccl" if cuda else "gloo", said, args)
    context = multiprocessing.spawn(_worker, arguments, nprocs=processes, join=False)
    stops: list[int] = []
    restore = _pass_on_signals(context.pids(), stops)
    try:
        while not context.join():
            pass
    except multiprocessing.ProcessExitedException:
        if not said.empty():
            name, message = said.get()
            raise getattr(errors, name)(message) from None
        if stops:  # a child that had not yet set out to save when the signal came
            raise errors.StoppedEarly(
                "stopped; the same command goes on from what is saved"
            ) from None
        raise
    finally:
        restore()


def _worker(rank: int, function, processes: int, port: int, backend: str, said, args) -> None:
    setup()
    import torch
    import torch.distributed as dist
    from detectron2.utils import comm

    if backend == "nccl":
        torch.cuda.set_device(rank)
    store = dist.TCPStore(HOST, port, is_master=False, timeout=TIMEOUT)
    dist.init_process_group(backend, store=store, world_size=processes, rank=rank, timeout=TIMEOUT)
    if hasattr(comm, "create_local_process_group"):
        comm.create_local_process_group(processes)
    else:
        comm._LOCAL_PROCESS_GROUP = dist.new_group(list(range(processes)))
    try:
        function(*args)
        _leave_together(store, processes)
    except errors.DenseSSLError as error:
        if isinstance(error, errors.StoppedEarly):
            _leave_together(store, processes)  # the first to leave ends those still writing
        said.put((type(error).__name__, str(error)))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)  # torch.multiprocessing would take it for success
    dist.destroy_process_group()


def _leave_together(store, processes: int) -> None:
    """Wait for all processes at the parent's store. After a collective alone, the first to close
    its connections can make the last one's end of that collective fail."""
    store.add("done", 1)
    while store.add("done", 0) < processes:
        time.sleep(0.02)


def _pass_on_signals(children: list[int], seen: list[int]) -> Callable[[], None]:
    """Send SIGTERM on to ``children``, leave SIGINT to them (a terminal's Ctrl-C reaches them too)
    and note both in ``seen``; returns what undoes it."""

    def handle(number, frame):
        seen.append(number)
        for child in children if number == signal.SIGTERM else []:
            with suppress(ProcessLookupError):  # it has ended already
                os.kill(child, number)

    if threading.current_thread() is not threading.main_thread():
        return lambda: None  # only the main thread may set handlers
    old = {n: signal.signal(n, handle) for n in (signal.SIGTERM, signal.SIGINT)}

    def restore():
        for number, handler in old.items():
            signal.signal(number, handler)

    return restore
