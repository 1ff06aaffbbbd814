"""The checkpoint layouts that ``convert`` knows: one row each.

A row says in which container of the file the tensors lie, under which prefix, and which of the
names behind that prefix are known not to be the backbone. Everything else there must be the
backbone, exactly; what is not behind the prefix (momentum encoders, queues, heads) is left behind.
"""

import re
from dataclasses import dataclass

WRAPPER = "module."  # DistributedDataParallel puts it before every name; it is taken off first
# A file's two networks by all their names: the trained one, and its average or target.
BRANCHES = (("query", "online", "student"), ("key", "target", "teacher", "ema"))


@dataclass(frozen=True)
class KeyLayout:
    """One way in which a repository writes its checkpoints (prefix and patterns: unwrapped)."""

    name: str
    of: str  # whose files these are, for people
    prefix: str = ""  # of the backbone's names
    method: str | None = None  # the method, where the layout itself tells it
    tell: str = ""  # a name of the container is like this: sets layouts of one prefix apart
    container: tuple[str, ...] = ("state_dict",)  # keys that lead to the dict of tensors
    copy: str = ""  # prefix under which the container holds the same tensors a second time
    not_backbone: str = r"fc\..+"  # names after the prefix that are known and left behind
    marks: tuple[str, ...] = ()  # top-level keys without which it is not this layout
    author: str = ""  # the value that the top-level key 'author' must have
    names: str = "torchvision"  # whose names follow the prefix: these, or renaming's
    branch: str = ""  # which network that is, where the file holds two: one of BRANCHES
    other: tuple[str, tuple[str, ...], str] | None = None  # the other: branch, container, prefix
    alike: str = ""  # whose files have these very names, so that only people can tell


STATE, MODEL = ("state_dict",), ("model",)
TRUNK = ("classy_state_dict", "base_model", "model", "trunk")
LIGHTNING = ("pytorch-lightning_version",)
NECK = r"encoder_q\.1\."  # the projectors of query encoders that are (ResNet, projectors)
HEADS = r"(fc|head|heads)\..+"


def _key(prefix: str, container: tuple[str, ...] = STATE) -> dict:
    return {"branch": "query", "other": ("key", container, prefix)}


def _target(prefix: str) -> dict:
    return {"branch": "online", "other": ("target", STATE, prefix)}


def _student(prefix: str) -> dict:
    return {"branch": "teacher", "other": ("student", STATE, prefix)}


def _teacher(prefix: str) -> dict:
    """The teacher, where it and the student are two dicts of the same names."""
    return {
        "container": ("teacher",),
        "branch": "teacher",
        "other": ("student", ("student",), prefix),
    }


SWAV: dict = {
    "tell": r"prototypes\..+",
    "not_backbone": r"(projection_head|prototypes)\..+",
}
RESIM_C4: dict = {
    "tell": r"encoder_q\.mocodet_\w+\..+",
    "not_backbone": r"(fc|mocodet_\w+)\..+",
}
QUERY = {"copy": "encoder_q.0.", **_key("encoder_k.0.")}  # its two names in OpenSelfSup
LAYOUTS = [  # tried in this order
    KeyLayout(
        "densessl", "densessl pretrain", container=("backbone",), marks=("method", "normalization")
    ),
    KeyLayout(
        "detectron2", "densessl convert", container=MODEL, marks=("densessl",), names="detectron2"
    ),
    # FAIR's, Microsoft's and others' own repositories
    KeyLayout(
        "pixpro", "PixPro", "encoder.", "pixpro", container=MODEL, **_key("encoder_k.", MODEL)
    ),
    KeyLayout("vicregl", "VICRegL, training", "backbone.", "vicregl", r"maps_projector\..+", MODEL),
    KeyLayout("vicreg", "VICReg, training", "backbone.", "vicreg", r"projector\.0\.bias", MODEL),
    KeyLayout(
        "barlow_twins",
        "Barlow Twins, training",
        "backbone.",
        "barlow_twins",
        r"bn\.running_mean",
        MODEL,
    ),
    KeyLayout(
        "setsim", "SetSim", "encoder_q.0.", "setsim", NECK + r"0\.weight", **_key("encoder_k.0.")
    ),
    KeyLayout(
        "resim_fpn",
        "ReSim with an FPN",
        "encoder_q.",
        "resim_fpn",
        r"encoder_q\.fpn_lateral5\.(0\.)?weight",
        **_key("encoder_k."),
    ),
    KeyLayout("resim_c4", "ReSim-C4", "encoder_q.", "resim_c4", **RESIM_C4, **_key("encoder_k.")),
    KeyLayout(
        "moco_v1",
        "MoCo-v1",
        "encoder_q.",
        "moco_v1",
        r"encoder_q\.fc\.weight",
        **_key("encoder_k."),
    ),
    KeyLayout(
        "moco_v2",
        "MoCo-v2",
        "encoder_q.",
        "moco_v2",
        alike="ReSim-C4's (--from resim_c4)",
        **_key("encoder_k."),
    ),
    KeyLayout(
        "moco_v3",
        "MoCo-v3",
        "base_encoder.",
        "moco_v3",
        not_backbone=HEADS,
        **_key("momentum_encoder."),
    ),
    KeyLayout(
        "solo_learn_encoder",
        "solo-learn, older",
        "encoder.",
        tell=r"classifier\.weight",
        marks=LIGHTNING,
        **_target("momentum_encoder."),
    ),
    KeyLayout("simsiam", "SimSiam", "encoder.", "simsiam"),
    # OpenSelfSup and MMSelfSup: the query encoder has two names before 1.0
    KeyLayout(
        "densecl",
        "DenseCL, training",
        "backbone.",
        "densecl",
        NECK + r"mlp2\.0\.weight",
        alike="HoughCL's (--method houghcl)",
        **QUERY,
    ),
    KeyLayout(
        "moco_v2_openselfsup",
        "OpenSelfSup's MoCo-v2",
        "backbone.",
        "moco_v2",
        NECK + r"mlp\.0\.weight",
        **QUERY,
    ),
    KeyLayout(
        "byol_openselfsup",
        "OpenSelfSup's BYOL",
        "backbone.",
        "byol",
        r"online_net\.0\.conv1\.weight",
        copy="online_net.0.",
        **_target("target_net.0."),
    ),
    KeyLayout(
        "densecl_mmselfsup",
        "MMSelfSup's DenseCL",
        "backbone.",
        "densecl",
        "queue2",
        **_key("encoder_k.module.0."),
    ),
    KeyLayout(
        "moco_mmselfsup",
        "MMSelfSup's MoCo",
        "backbone.",
        "moco_v2",
        r"encoder_k\.module\.0\.conv1\.weight",
        **_key("encoder_k.module.0."),
    ),
    KeyLayout(
        "byol_mmselfsup",
        "MMSelfSup's BYOL",
        "backbone.",
        "byol",
        r"target_net\.module\.0\.conv1\.weight",
        **_target("target_net.module.0."),
    ),
    # Teacher and student side by side
    KeyLayout("scfs", "SCFS", "backbone.model.", "scfs", **_teacher("backbone.model.")),
    KeyLayout(
        "dino_vit",
        "DINO with a ViT, training",
        "backbone.",
        "dino",
        r"backbone\.cls_token",
        **_teacher("backbone."),
    ),
    KeyLayout("dino", "DINO, training", "backbone.", "dino", **_teacher("backbone.")),
    KeyLayout("swav", "SwAV, training", method="swav", **SWAV),
    KeyLayout("swav_released", "SwAV, released", method="swav", container=(), **SWAV),
    KeyLayout("densecl_released", "DenseCL, released", method="densecl", author="DenseCL"),
    # VISSL
    KeyLayout("vissl", "VISSL, training", "_feature_blocks.", container=TRUNK),
    KeyLayout("vissl_model", "VISSL, a model", "_feature_blocks.", container=("model_state_dict",)),
    KeyLayout("vissl_trunk", "VISSL, a trunk", "_feature_blocks.", container=()),
    # solo-learn and lightly: modules of Lightning
    KeyLayout(
        "solo_learn",
        "solo-learn",
        "backbone.",
        tell=r"classifier\.weight",
        marks=LIGHTNING,
        **_target("momentum_backbone."),
    ),
    KeyLayout(
        "lightly_moco",
        "lightly's MoCo",
        "query_backbone.",
        "moco_v2",
        r"query_backbone\..+",
        **_key("backbone."),
    ),
    KeyLayout(
        "lightly_dino",
        "lightly's DINO",
        "teacher_backbone.",
        "dino",
        r"student_backbone\..+",
        **_student("student_backbone."),
    ),
    KeyLayout(
        "lightly_dino_benchmark",
        "lightly's DINO, benchmark",
        "backbone.",
        "dino",
        r"student_backbone\..+",
        **_student("student_backbone."),
    ),
    KeyLayout(
        "lightly_byol_benchmark",
        "lightly's BYOL, benchmark",
        "backbone.",
        "byol",
        r"teacher_backbone\..+",
        **_target("teacher_backbone."),
    ),
    KeyLayout(
        "lightly_momentum",
        "lightly, a momentum method",
        "backbone.",
        tell=r"backbone_momentum\..+",
        **_key("backbone_momentum."),
    ),
    KeyLayout("backbone", "lightly, MMSelfSup, mmpretrain and others", "backbone."),
    KeyLayout(
        "backbone_bare", "a module with a backbone, its state dict", "backbone.", container=()
    ),
    # A network of its own, in a training file or alone
    KeyLayout(
        "state_dict",
        "torchvision's or timm's names in a training file",
        not_backbone=HEADS,
        branch="online",
        other=("ema", ("state_dict_ema",), ""),
    ),
    KeyLayout(
        "model", "torchvision's or timm's names under 'model'", container=MODEL, not_backbone=HEADS
    ),
    KeyLayout(
        "detectron2_model", "Detectron2's zoo and training", container=MODEL, names="detector"
    ),
    # Caffe2's names: Detectron's and Detectron2's zoos, MSRA's R-50.pkl among them
    *(
        KeyLayout(
            name, "Detectron's zoos", "", None, "res2_0_branch2a_w", container, names="caffe2"
        )
        for name, container in (
            ("caffe2", ()),
            ("caffe2_blobs", ("blobs",)),
            ("caffe2_model", MODEL),
        )
    ),
    # transformers: a classifier, a backbone alone, and both in a training file
    *(
        KeyLayout(
            name,
            "Hugging Face's ResNet",
            prefix,
            tell=re.escape(prefix) + r"embedder\.embedder\.convolution\.weight",
            container=container,
            not_backbone=r"(classifier|pooler)\..+",
            names="huggingface",
        )
        for name, container, prefix in (
            ("huggingface", (), "resnet."),
            ("huggingface_backbone", (), ""),
            ("huggingface_state_dict", STATE, "resnet."),
        )
    ),
    KeyLayout(
        "timm",
        "timm's ViTs, DINO's released ViTs",
        tell=r"blocks\.0\.attn\.qkv\.weight",
        container=(),
        not_backbone=HEADS,
    ),
    KeyLayout(
        "torchvision",
        "torchvision's and timm's models; DINO's, VICReg's, Barlow Twins' released",
        container=(),
        not_backbone=HEADS,
    ),
]
BY_NAME = {layout.name: layout for layout in LAYOUTS}
