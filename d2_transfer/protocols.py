"""The protocols: of each its configs, data sets and metrics, what trains it, and what it takes.

The command line, the checks, ``doctor``, SLURM's jobs and the documents read them here. Nothing of
it imports torch.
"""

import importlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from densessl.configs import FOLDER
from densessl.core.errors import InputError, unknown
from densessl.core.external import MARK, load_object

FAMILIES = (DETECTION, CLASSIFICATION, DENSE) = ("detection", "classification", "dense_probes")


@dataclass(frozen=True)
class Protocol:
    """What a paper's row of numbers was measured with.

    ``configs``: variant → file below ``configs/transfer`` (of your own protocol also a file beside
    its own); where there is but one way, its variant is the empty string, and the first is the
    default. ``options``: what every variant has otherwise than its file. ``metrics``: those of the
    papers' tables.
    ``datasets``: by the names that :data:`datasets.LAYOUTS` has, whose metadata name the evaluator.
    ``parameters``: millions that a trained model keeps, of the largest variant; 0: none is kept.
    ``family``: the module that checks, trains and evaluates. ``frozen``: the network is not
    trained, so that ``random_bn`` is a control of it. ``stand_in``: the variant that scenes have
    data for, where the others have none. ``needs``, ``takes``: flags that name the user's own data;
    ``instead``: others in place of all of these, of which the first is needed.
    """

    name: str
    title: str
    configs: Mapping[str, str]
    metrics: tuple[str, ...]
    datasets: tuple[str, ...]
    parameters: float
    family: str = DETECTION
    frozen: bool = False
    stand_in: str | None = None
    needs: tuple[str, ...] = ()
    takes: tuple[str, ...] = ()
    instead: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def variants(self) -> tuple[str, ...]:
        return tuple(self.configs)

    @property
    def room(self) -> ModuleType:
        """The module with the family's ``check_data``, ``prepare``, ``run_trial`` and so on."""
        return room(self.family)

    @property
    def suffix(self) -> str:
        """Of the weights file that it starts from: Detectron2's, or torchvision's and timm's."""
        return ".pkl" if self.family == DETECTION else ".pth"

    def file(self, variant: str) -> Path:
        """The config of a variant."""
        return FOLDER / "transfer" / self.configs[variant]

    @property
    def words(self) -> list[str]:
        """The options as ``KEY VALUE``."""
        return [word for key, value in self.options.items() for word in (key, str(value))]


BOX = ("bbox/AP", "bbox/AP50", "bbox/AP75")
MASK = ("segm/AP", "segm/AP50", "segm/AP75")
KEYPOINT = ("keypoints/AP", "keypoints/AP50", "keypoints/AP75")
RARITY = ("APr", "APc", "APf")  # of LVIS: rare, common and frequent categories
LVIS_BOX = BOX + tuple(f"bbox/{name}" for name in RARITY)
LVIS_METRICS = MASK + tuple(f"segm/{name}" for name in RARITY) + LVIS_BOX
QUALITY = tuple(f"panoptic_seg/{name}" for name in ("PQ", "SQ", "RQ", "PQ_th", "PQ_st"))
ACCURACY = ("cls/top1", "cls/top5", "cls/mean_class")
IOU = ("sem_seg/mIoU",)
VOC = ("voc_2007_trainval", "voc_2012_trainval", "voc_2007_test")
COCO = ("coco_2017_train", "coco_2017_val")
COCO_KEYPOINTS = ("keypoints_coco_2017_train", "keypoints_coco_2017_val")
LVIS = ("lvis_v0.5_train", "lvis_v0.5_val")
LVIS_V1 = ("lvis_v1_train", "lvis_v1_val")
PANOPTIC_METRICS = QUALITY + BOX[:1] + MASK[:1]
PANOPTIC = ("coco_2017_train_panoptic_separated", "coco_2017_val_panoptic_separated")
CITYSCAPES = ("cityscapes_fine_instance_seg_train", "cityscapes_fine_instance_seg_val")
IMAGENET = ("imagenet/train", "imagenet/val")
OWN = ("custom_train", "custom_val")
SMALL = ("cifar10", "cifar100", "cub200", "cars", "aircraft", "pets", "folder", "voc_objects")
LABELLED = {  # images with label images: training, test
    "voc": ("voc_2012_aug_semseg_train", "voc_2012_semseg_val"),
    "cityscapes": ("cityscapes_fine_sem_seg_train", "cityscapes_fine_sem_seg_val"),
    "ade20k": ("ade20k_sem_seg_train", "ade20k_sem_seg_val"),
    "camvid": ("camvid_sem_seg_train", "camvid_sem_seg_test"),
    "cocostuff27": ("coco_stuff27_train", "coco_stuff27_val"),
    "cocostuff15": ("coco_stuff15_train", "coco_stuff15_val"),
    "cocothings12": ("coco_things12_train", "coco_things12_val"),
}
PROBES = {  # what is measured of frozen features of positions
    "linear_semseg": "a linear layer on frozen features of positions (batch norm before it)",
    "knn_semseg": "nearest labelled positions on frozen features, k 30, temperature 0.02",
    "overcluster": "clusters of frozen features of positions, matched to the classes",
}
OWN_PROBES = {"linear": "linear_semseg", "knn": "knn_semseg", "overcluster": "overcluster"}
ANY_FORM = ("train", "val", "val_share", "groups", "labels", "data_seed", "channel_files")
COCO_FILES = ("train_json", "train_images", "val_json", "val_images")
MASK_FILES = ("train_images", "train_masks", "val_images", "val_masks")
MASK_OPTIONS = ("classes", "ignore", "image_suffix", "mask_suffix")
STEPS = {"1x": "90k", "2x": "180k", "3x": "270k"}  # of COCO's schedules
LARGEST = 60.0  # millions of parameters, of a detector that nothing else is known of
YAML = (".yaml", ".yml")
VIT_B = 86.0  # millions of parameters, the most of all backbones


def _protocol(
    name: str,
    title: str,
    metrics: tuple[str, ...],
    datasets: tuple[str, ...],
    parameters: float,
    variants: Sequence[str] = (),
    **more,
) -> Protocol:
    """One whose configs are called as it is, with the variant behind where it has some."""
    configs = {variant: f"{name}_{variant}.yaml" for variant in variants} or {"": f"{name}.yaml"}
    return Protocol(name, title, configs, metrics, datasets, parameters, **more)


def _coco(
    kind: str, title: str, *args, schedules: Sequence[str] = ("1x", "2x"), **more
) -> list[Protocol]:
    """The schedules of a protocol on COCO."""
    return [
        _protocol(
            f"coco_{kind}_{schedule}", f"COCO {title}, {STEPS[schedule]} iterations", *args, **more
        )
        for schedule in schedules
    ]


def _classification(*args, **more) -> Protocol:
    return _protocol(*args, family=CLASSIFICATION, **more)


def _probe(name: str, title: str, datasets: tuple[str, ...], variants, **more) -> Protocol:
    metrics = ("sem_seg/mIoU", "sem_seg/pACC")
    more |= {"family": DENSE, "frozen": True}
    return _protocol(name, title, metrics, datasets, 0.0, variants, **more)


C4 = "VOC07+12 detection, Faster R-CNN R50-C4"
MASK_RCNN = "detection and instance segmentation, Mask R-CNN"
FPN_VARIANTS = ("moco2fc", "4conv1fc", "resim_released")
FCN_VARIANTS = ("fcn_d8", "moco_fcn")
SEMANTIC_FPN = "semantic_fpn"
DEEPLAB = "deeplab_v3plus"
_ALL = (
    _protocol("voc_det_c4", f"{C4}, 24k iterations", BOX, VOC, 33.0),
    _protocol(
        "voc_det_c4_frozen",
        f"{C4}, pretrained layers frozen, 24k iterations",
        BOX,
        VOC,
        33.0,
        ("res5_trainable", "res5_frozen"),
    ),
    *_coco("mask_c4", f"{MASK_RCNN} R50-C4", BOX + MASK, COCO, 36.0),
    *_coco("mask_fpn", f"{MASK_RCNN} R50-FPN", BOX + MASK, COCO, 47.0, FPN_VARIANTS),
    *_coco(
        "keypoint_fpn",
        "person keypoints, Keypoint R-CNN R50-FPN",
        KEYPOINT + BOX,
        COCO_KEYPOINTS,
        60.0,
    ),
    *_coco("retinanet", "detection, RetinaNet R50-FPN", BOX, COCO, 38.0),
    _protocol("coco_fcos_1x", "COCO detection, FCOS R50-FPN, 90k iterations", BOX, COCO, 32.4),
    _protocol(
        "coco_cascade_mask_fpn_1x",
        "COCO detection and instance segmentation, Cascade Mask R-CNN R50-FPN, 90k iterations",
        BOX + MASK,
        COCO,
        72.0,
    ),
    *_coco(
        "panoptic_fpn",
        "panoptic segmentation, Panoptic FPN R50-FPN",
        PANOPTIC_METRICS,
        PANOPTIC,
        46.0,
        schedules=("1x", "3x"),
    ),
    _protocol(
        "coco_pointrend_1x",
        "COCO detection and instance segmentation, PointRend R50-FPN, 90k iterations",
        BOX + MASK,
        COCO,
        60.0,
    ),
    _protocol(
        "coco_vitdet_b_100ep",
        f"COCO {MASK_RCNN}, ViTDet, ViT-B, 100 epochs",
        BOX + MASK,
        COCO,
        111.0,
    ),
    _protocol(
        "lvis_mask_fpn_2x",
        f"LVIS v0.5 {MASK_RCNN} R50-FPN, 180k iterations",
        LVIS_METRICS,
        LVIS,
        50.6,
    ),
    _protocol(
        "lvis_v1_mask_fpn_2x",
        f"LVIS v1 {MASK_RCNN} R50-FPN, 180k iterations",
        LVIS_METRICS,
        LVIS_V1,
        50.6,
    ),
    _protocol(
        "cityscapes_inst",
        "Cityscapes instance segmentation, Mask R-CNN R50-FPN, 24k iterations",
        MASK[:2],
        CITYSCAPES,
        45.0,
    ),
    _protocol(
        "voc_semseg",
        "VOC12 semantic segmentation, FCN-R50, 20k iterations (moco_fcn: 30k)",
        IOU,
        LABELLED["voc"],
        49.5,
        FCN_VARIANTS,
    ),
    _protocol(
        "cityscapes_semseg",
        "Cityscapes semantic segmentation, FCN-R50, 40k iterations (moco_fcn: 90k, semantic_fpn: "
        "Semantic FPN, 80k, deeplab_v3plus: DeepLab-v3+, 90k)",
        IOU,
        LABELLED["cityscapes"],
        49.5,
        (*FCN_VARIANTS, SEMANTIC_FPN, DEEPLAB),
    ),
    _protocol(
        "ade20k_semseg",
        "ADE20K semantic segmentation, FCN-R50, 80k iterations (semantic_fpn: Semantic FPN, 160k)",
        IOU,
        LABELLED["ade20k"],
        49.6,
        ("fcn_d8", SEMANTIC_FPN),
    ),
    _protocol(
        "custom_det",
        "your own boxes, Faster R-CNN R50-FPN",
        BOX,
        OWN,
        44.0,
        needs=COCO_FILES,
        instead=ANY_FORM,
    ),
    _protocol(
        "custom_mask",
        "your own masks, Mask R-CNN R50-FPN",
        BOX + MASK,
        OWN,
        47.0,
        needs=COCO_FILES,
        instead=ANY_FORM,
    ),
    _protocol(
        "custom_keypoint",
        "your own keypoints, Keypoint R-CNN R50-FPN",
        KEYPOINT + BOX,
        OWN,
        60.0,
        needs=COCO_FILES,
        instead=ANY_FORM,
    ),
    Protocol(
        name="knn",
        title="ImageNet k-NN on frozen features, k 10, 20, 100, 200, temperature 0.07",
        configs={"last": "knn.yaml", "stages": "knn_stages.yaml"},
        metrics=("knn/top1", "knn/top5"),
        datasets=IMAGENET,
        parameters=0.0,
        family=CLASSIFICATION,
        frozen=True,
    ),
    _classification(
        "linear",
        "ImageNet linear classifier on frozen features, 100 epochs",
        ("linear/top1", "linear/top5"),
        IMAGENET,
        17.0,  # eight classifiers of 1000 classes on 2048 channels
        ("dino", "moco"),
        frozen=True,
    ),
    _classification(
        "custom_cls",
        "your own labelled images, fine-tuning, rate chosen on a part",
        ACCURACY,
        OWN,
        VIT_B,
        needs=("train",),
        takes=ANY_FORM[1:],
    ),
    *(
        _classification(
            f"semisup_{share}pct",
            f"ImageNet fine-tuning with {share} % of the labels",
            ACCURACY,
            IMAGENET,
            VIT_B,
        )
        for share in (1, 10)
    ),
    _classification(
        "finetune_cls",
        "fine-tuning on a small data set, 20k steps, rate and decay chosen on a part",
        ACCURACY,
        SMALL,
        VIT_B,
        SMALL,
        stand_in="voc_objects",
    ),
    *(
        _probe(name, title, tuple(each for pair in LABELLED.values() for each in pair), LABELLED)
        for name, title in PROBES.items()
    ),
    _probe(
        "custom_semseg",
        "your own images and label images, the same three probes",
        OWN,
        OWN_PROBES,
        needs=MASK_FILES,
        takes=MASK_OPTIONS,
        instead=ANY_FORM,
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ALL}


def room(family: str) -> ModuleType:
    """The module of a family."""
    return importlib.import_module(f".{family}", __package__)


def family_of(cfg) -> str:
    """The family of a protocol's config, which tells it by its TASK."""
    task = cfg.get("TASK")
    return DETECTION if task is None else DENSE if task in PROBES else CLASSIFICATION


def find(name: str, variant: str | None = None) -> tuple[Protocol, str]:
    """The protocol of that name, or your own, by ``path/to/file.py:Name`` or by Detectron2's
    config of it, ``path/to/file.yaml``, and its variant (the first unless named); InputError
    otherwise."""
    if name.endswith(YAML):
        protocol = _of_config(name)
    elif name.endswith(".py"):
        protocol = _of_lazy_config(name)
    elif MARK in name:
        protocol = _own(name)
    elif name in PROTOCOLS:
        protocol = PROTOCOLS[name]
    else:
        raise unknown("protocol", name, PROTOCOLS, "--protocol")
    if variant is None:
        return protocol, protocol.variants[0]
    if variant not in protocol.configs:
        if protocol.variants == ("",):
            raise InputError(f"--variant is '{variant}', but {name} has no variants")
        raise unknown("variant", variant, protocol.variants, f"--variant of {name}")
    return protocol, variant


def _own(named: str) -> Protocol:
    """The :class:`Protocol` in a user's file, with its configs where they lie."""
    found = load_object(named, "protocol", "--protocol")
    if not isinstance(found, Protocol):
        raise InputError(f"--protocol: {named} is '{found}'; it must be a Protocol")
    where = f"--protocol {named}"
    _check_name(found.name, where)
    if found.family not in FAMILIES:
        raise unknown("family", found.family, FAMILIES, where)
    folder = Path(named.rpartition(":")[0]).expanduser().absolute().parent
    files = {variant: folder / file for variant, file in found.configs.items()}
    configs = {
        variant: str(file) if file.is_file() else found.configs[variant]
        for variant, file in files.items()
    }
    own = replace(found, configs=configs)
    for variant in own.variants:
        if not own.file(variant).is_file():
            raise InputError(
                f"{where}: there is no config '{found.configs[variant]}' in {folder}, nor among "
                f"those of DenseSSL ({FOLDER / 'transfer'})"
            )
    return own


def _check_name(name: str, where: str) -> None:
    if name in PROTOCOLS or not re.fullmatch(r"\w[\w.-]*", name):
        raise InputError(
            f"{where}: its name is '{name}'; allowed: letters, digits, '_', '-' and '.', and no "
            "name of --list, since records tell protocols by their names"
        )


def _of_config(named: str) -> Protocol:
    """A protocol of a user's config for Detectron2, called as its file."""
    from . import compat, config_files
    from .datasets.layouts import are_panoptic, are_semantic

    file = Path(named).expanduser().absolute()
    where = f"--protocol {named}"
    _check_name(file.stem, where)
    compat.setup()
    layers = config_files.read(file)
    cfg = compat.default_options(layers.projects)
    config_files.merge(cfg, layers)
    datasets = tuple(dict.fromkeys((*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST)))
    if are_semantic(datasets):
        raise InputError(
            f"{where} is on {', '.join(datasets)}, whose label images a mapper of DenseSSL reads, "
            "by options of its own; give your options to cityscapes_semseg, voc_semseg or "
            "ade20k_semseg, as KEY VALUE"
        )
    metrics = BOX + MASK * cfg.MODEL.MASK_ON + KEYPOINT * cfg.MODEL.KEYPOINT_ON
    if any(name in CITYSCAPES for name in cfg.DATASETS.TEST):
        metrics = MASK[:2]
    if any(name in (*LVIS, *LVIS_V1) for name in cfg.DATASETS.TEST):
        metrics = LVIS_METRICS if cfg.MODEL.MASK_ON else LVIS_BOX
    if are_panoptic(cfg.DATASETS.TEST):
        metrics = PANOPTIC_METRICS
    title = f"a config of one's own, {file.name}"
    return Protocol(file.stem, title, {"": str(file)}, metrics, datasets, LARGEST)


def _of_lazy_config(named: str) -> Protocol:
    """A protocol of a user's LazyConfig, called as its file, which is run."""
    from . import lazy_config
    from .datasets.layouts import are_panoptic, are_semantic

    file = Path(named).expanduser().absolute()
    _check_name(file.stem, f"--protocol {named}")
    held = lazy_config.load(file)
    names = (lazy_config.names(held, each) for each in ("train", "test"))
    datasets = tuple(dict.fromkeys(each for found in names for each in found))
    if are_semantic(datasets):
        raise InputError(f"--protocol {named} is on label images; allowed: data sets with objects")
    masks, keypoints = (lazy_config.has(held, f"{head}_head") for head in ("mask", "keypoint"))
    metrics = BOX + MASK * masks + KEYPOINT * keypoints
    if are_panoptic(datasets):
        metrics = PANOPTIC_METRICS
    title = f"a LazyConfig of one's own, {file.name}"
    return Protocol(file.stem, title, {"": str(file)}, metrics, datasets, LARGEST)


def anywhere(name: str) -> str:
    """The name for a process that runs in another folder: your own file by its absolute path."""
    if name.endswith((*YAML, ".py")):
        return str(Path(name).expanduser().absolute())
    place, mark, own = name.rpartition(":")
    return f"{Path(place).expanduser().absolute()}:{own}" if mark else name
