"""Detectron2's own trainer, with what several trials need: exact resumption, stops, progress."""

import os
import weakref
from pathlib import Path

from . import (  # noqa: F401  (modeling registers its heads)
    compat,
    lazy_config,
    modeling,
    solver,
    stops,
)
from .checkpoints import AtomicCheckpointer
from .config import REPEATING
from .datasets import labelled
from .datasets.detection_mapper import DetectionMapper
from .datasets.layouts import are_semantic
from .datasets.semantic_mapper import SemanticMapper
from .evaluation import build_evaluator
from .hooks import (
    AfterPreciseBN,
    BoardMetrics,
    EvaluateTrained,
    Forgiving,
    RunMetrics,
    SaveBeforeEvaluation,
    SeedEachStep,
    StopWhenAsked,
    TrialBar,
)
from .mixed_precision import MixedTrainer
from .modeling.sliding_window import by_windows
from .sampling import GroupedOrder, repeat_factors, test_loader, training_loader, wide_images
from .saved import Saved
from .weights import check_loaded

compat.setup()
import torch  # noqa: E402
from detectron2.data import get_detection_dataset_dicts  # noqa: E402
from detectron2.engine import hooks  # noqa: E402
from detectron2.utils import comm  # noqa: E402
from detectron2.utils.events import (  # noqa: E402
    CommonMetricPrinter,
    JSONWriter,
    TensorboardXWriter,
)

NORMALIZER = "loss_normalizer"


class Trainer(compat.default_trainer(MixedTrainer)):  # type: ignore[misc]  # a class of Detectron2's
    """Detectron2's DefaultTrainer for one trial.

    Adds: the batches, their augmentations and all that torch draws are functions of SEED and the
    step, so that a stopped trial resumes bit for bit; checkpoints are atomic and hold the
    optimizer's state in both versions of Detectron2; the weights file is proved to have filled the
    backbone; after PreciseBN all ranks have rank 0's statistics; AMP on any device, in either half
    precision. ``lines``: the run's metrics.jsonl, ``trial``: its number.
    """

    def __init__(self, cfg, trial: int = 1, lines: str | os.PathLike | None = None):
        self.trial, self.lines = trial, lines
        saved = Saved(cfg.OUTPUT_DIR)
        self._resumed = saved.whole()
        done = saved.number(self._resumed) if self._resumed else None
        self._first_batch = 0 if done is None else done + 1
        self._dicts: list[dict] | None = None
        super().__init__(cfg)
        if cfg.SOLVER.AMP.ENABLED:
            self._trainer.configure(cfg)

    def resume_or_load(self, resume: bool = True) -> None:
        """Resume from the last checkpoint, else load MODEL.WEIGHTS and check that all were used."""
        super().resume_or_load(resume)
        if isinstance(self.scheduler, solver.PolyLR):  # older checkpoints do not say where it is
            self.scheduler.last_epoch = self.start_iter
        if self.start_iter == 0 and self.cfg.MODEL.WEIGHTS:
            transfer_fpn = self.cfg.MODEL.FPN.TRANSFER
            check_loaded(self._bare_model(), self.cfg.MODEL.WEIGHTS, transfer_fpn)

    def train(self) -> dict:
        """Train, evaluate, and return Detectron2's results (on rank 0; elsewhere empty)."""
        super().train()
        return self._last_eval_results or {}

    def run_step(self) -> None:
        """Detectron2's step. On the CPU, TorchScript (RetinaNet's focal loss is such a function)
        does not compile again what it has run before: the fused kernels round otherwise, and so a
        process that resumes would differ from the one that was not stopped."""
        with torch.jit.optimized_execution(self.cfg.MODEL.DEVICE != "cpu"):
            super().run_step()

    @classmethod
    def build_model(cls, cfg):
        model = lazy_config.model(cfg) if cfg.LAZY.CONFIG else super().build_model(cfg)
        if cfg.MODEL.CHANNELS_LAST:
            model = model.to(memory_format=torch.channels_last)
        return model

    @classmethod
    def build_optimizer(cls, cfg, model):
        if cfg.LAZY.CONFIG:
            return lazy_config.optimizer(cfg, model)
        return solver.build_optimizer(cfg, model)

    @classmethod
    def build_lr_scheduler(cls, cfg, optimizer):
        if cfg.LAZY.CONFIG:
            return lazy_config.schedule(cfg, optimizer)
        return solver.build_lr_scheduler(cfg, optimizer)

    def build_train_loader(self, cfg):
        sets = cfg.DATASETS
        if self._dicts is None:
            keypoints = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE
            self._dicts = get_detection_dataset_dicts(
                sets.TRAIN,
                filter_empty=cfg.DATALOADER.FILTER_EMPTY_ANNOTATIONS,
                min_keypoints=keypoints if cfg.MODEL.KEYPOINT_ON else 0,
            )
            if sets.LABELS:
                self._dicts = labelled.kept(self._dicts, cfg, comm.is_main_process())
        loading = cfg.DATALOADER
        repeats = loading.SAMPLER_TRAIN == REPEATING
        order = GroupedOrder(
            len(self._dicts),
            cfg.SOLVER.IMS_PER_BATCH // comm.get_world_size(),
            max(cfg.SEED, 0),
            wide_images(self._dicts) if cfg.DATALOADER.ASPECT_RATIO_GROUPING else None,
            comm.get_rank(),
            comm.get_world_size(),
            self._first_batch,
            repeat_factors(self._dicts, loading.REPEAT_THRESHOLD) if repeats else None,
        )
        mapper = build_mapper(cfg, is_train=True)
        return training_loader(self._dicts, mapper, order, loading.NUM_WORKERS, loading.TIMEOUT)

    @classmethod
    def build_test_loader(cls, cfg, dataset_name):
        dicts = get_detection_dataset_dicts([dataset_name], filter_empty=False)
        mapper = build_mapper(cfg, is_train=False)
        return test_loader(dicts, mapper, cfg.DATALOADER.NUM_WORKERS, cfg.DATALOADER.TIMEOUT)

    def build_hooks(self):
        self.checkpointer = AtomicCheckpointer(
            self._bare_model(),
            self.cfg.OUTPUT_DIR,
            self.cfg.MODEL.FPN.TRANSFER,
            self._resumed,
            trainer=weakref.proxy(self),
        )
        self._first_batch = 0  # PreciseBN's own loader does not go on from anywhere
        built = super().build_hooks()
        for place, hook in enumerate(built):
            if isinstance(hook, hooks.PreciseBN):
                built.insert(place + 1, AfterPreciseBN(hook, self.cfg.TEST.EVAL_PERIOD))
                break
        place = next(n for n, hook in enumerate(built) if isinstance(hook, hooks.EvalHook))
        built[place] = EvaluateTrained(self.cfg.TEST.EVAL_PERIOD, built[place]._func)
        if self.cfg.TEST.EVAL_PERIOD > 0 and comm.is_main_process():
            built.insert(place, SaveBeforeEvaluation(self.cfg.TEST.EVAL_PERIOD))
        return [TrialBar(self.trial), SeedEachStep(self.cfg.SEED), *built, StopWhenAsked()]

    def build_writers(self):
        folder = Path(self.cfg.OUTPUT_DIR)
        json = folder / "metrics.json"
        written = [
            CommonMetricPrinter(self.max_iter),
            Forgiving(JSONWriter(str(json)), json),
            # Detectron2's own alone has pictures.
            Forgiving(TensorboardXWriter(str(folder)), folder)
            if self.cfg.VIS_PERIOD
            else BoardMetrics(folder),
        ]
        if self.lines:
            written.append(RunMetrics(self.lines, self.trial, self.max_iter))
        return written

    @classmethod
    def build_evaluator(cls, cfg, dataset_name):
        images = len(cls.build_test_loader(cfg, dataset_name))
        folder = str(Path(cfg.OUTPUT_DIR) / "evaluation")
        test = cfg.TEST
        return build_evaluator(
            dataset_name,
            folder,
            images,
            test.KEYPOINT_OKS_SIGMAS,
            test.EVALUATOR,
            lazy_config.evaluator(cfg),
        )

    @classmethod
    def test(cls, cfg, model, evaluators=None):
        if evaluators is None:
            evaluators = [cls.build_evaluator(cfg, name) for name in cfg.DATASETS.TEST]
        try:
            with stops.evaluation():
                return super().test(cfg, by_windows(cfg, model), evaluators)
        finally:
            for evaluator in evaluators:
                evaluator.close()

    def state_dict(self) -> dict:
        state = super().state_dict() | {"_trainer": self._trainer.state_dict()}  # 0.5 lacks it
        # RetinaNet's moving average of objects an image, which is no buffer of the model's
        if (mean := getattr(self._bare_model(), NORMALIZER, None)) is not None:
            state[NORMALIZER] = float(mean)
        return state

    def load_state_dict(self, state: dict) -> None:
        inner = state["_trainer"]
        if NORMALIZER in state:
            setattr(self._bare_model(), NORMALIZER, state.pop(NORMALIZER))
        super().load_state_dict(state)
        self._trainer.load_state_dict(inner)

    def _bare_model(self):
        model = self._trainer.model
        return model.module if hasattr(model, "module") else model


def build_mapper(cfg, is_train: bool):
    """What turns a data set's dict into a model's input, whatever the model is."""
    if cfg.LAZY.CONFIG:
        return lazy_config.mapper(cfg, is_train)
    if are_semantic(cfg.DATASETS.TRAIN):
        return SemanticMapper(cfg, is_train)
    return DetectionMapper(cfg, is_train)
