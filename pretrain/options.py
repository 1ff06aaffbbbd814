"""Every option of ``densessl pretrain``: its default, what it may be, one line on its meaning.

Those of a method lie at the top of its file in ``methods/``; :data:`METHODS` names the files. The
defaults are MoCo-v2 on ImageNet as its authors ran it.
"""

import ast
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

METHODS = {  # METHOD.NAME (besides path/to/file.py:Class): the file in methods/, and its class
    "moco": "moco.MoCo",
    "simsiam": "simsiam.SimSiam",
    "byol": "byol.BYOL",
    "simclr": "simclr.SimCLR",
    "swav": "swav.SwAV",
    "setsim": "setsim.SetSim",
    "setsim_simsiam": "setsim.SetSimSiam",
    "densecl": "densecl.DenseCL",
    "houghcl": "houghcl.HoughCL",
    "pixpro": "pixpro.PixPro",
    "vader": "vader.VADeR",
    "resim": "resim.ReSim",
    "dino": "dino.DINO",
    "scfs": "scfs.SCFS",
    "dense": "moco.DenseMoCo",
    "dense_simsiam": "simsiam.DenseSimSiam",
}


def _declared(name: str) -> dict[str, Any]:
    """The dictionary ``name`` of all methods' files together.

    Read as a literal and not imported: options are checked before torch is, which takes seconds.
    """
    found: dict[str, Any] = {}
    for file in dict.fromkeys(place.split(".")[0] for place in METHODS.values()):
        text = (Path(__file__).parent / "methods" / f"{file}.py").read_text(encoding="utf-8")
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
                found |= ast.literal_eval(node.value)
    return found


RECIPES = (
    "moco_v1",
    "moco_v2",
    "moco_v2_coord",
    "byol",
    "pixpro",
    "simclr",
    "dino",
    "swav",
    "resim",
    "moco_v2_same_flip",
)
BACKBONES = ("resnet18", "resnet50", "resnet101", "vit_tiny", "vit_small", "vit_base")
OPTIONS = {
    "OUTPUT_DIR": "output",  # the run's folder; a run found there resumes
    "SEED": (0, ">= 0"),  # all that is random is a function of it, epoch, sample and step
    # folder: a tree of images; list: a text file; coco: a JSON; shards: tars
    "DATA.SOURCE": ("folder", ("folder", "list", "coco", "shards")),
    "DATA.PATH": "",  # the folder, the list file, COCO's folder of images, the shards; several: a:b
    # folder only: these class folders: imagenet100, or a text file of their names
    "DATA.CLASSES": "",
    # coco only: the instances JSON that names the images (labels are not read)
    "DATA.ANNOTATIONS": "",
    "DATA.WORKERS": (4, ">= 0"),  # loader processes; any number gives the same run
    "DATA.RANGE": "auto",  # values that become black and white where not of 8 bits: 0,4095; or auto
    # of an image; a larger one is read at reduced scale; 0: no limit
    "DATA.MAX_PIXELS": (178956970, ">= 0"),
    # seconds that a batch may take before the run stops; 0: no limit
    "DATA.TIMEOUT": (120.0, ">= 0"),
    # share of images that may be unreadable before the run stops
    "DATA.MAX_UNREADABLE": (0.05, ">= 0, <= 1"),
    "VIEWS.RECIPE": ("moco_v2", RECIPES),  # of views/recipes.py, or path/to/file.py:Name
    "VIEWS.SIZE": (224, ">= 8"),  # side of a global view in pixels
    "VIEWS.SCALE": ((),),  # area of a global crop over that of the image; () is the recipe's
    # local views an image beside the two global ones (multi-crop)
    "VIEWS.LOCAL_CROPS": (0, ">= 0"),
    "VIEWS.LOCAL_SIZE": (96, ">= 8"),  # side of a local view in pixels
    "VIEWS.LOCAL_SCALE": ((0.05, 0.14),),  # area of a local crop over that of the image
    "BACKBONE.NAME": ("resnet50", BACKBONES),  # or path/to/file.py:Name
    "BACKBONE.WEIGHTS": "",  # start from its backbone: any file that densessl convert takes
    # split: one process acts as several GPUs; BN: per process; SyncBN
    "BACKBONE.NORM": ("split", ("split", "BN", "SyncBN")),
    "BACKBONE.GROUP_SIZE": (32, ">= 2"),  # split: images a normalisation group (MoCo: 32 a GPU)
    "BACKBONE.ZERO_INIT_RESIDUAL": False,  # start every residual block as the identity
    # ViT, the student alone: share of dropped paths in the last block
    "BACKBONE.DROP_PATH": (0.1, ">= 0, <= 1"),
    "METHOD.NAME": "moco",  # a name that docs/methods.md lists, or your own: path/to/file.py:Class
    **_declared("OPTIONS"),
    "SOLVER.OPTIMIZER": ("sgd", ("sgd", "lars", "adamw")),
    # lars: share of its weight by which a layer may move, over the rate
    "SOLVER.LARS_TRUST": (0.001, "> 0"),
    "SOLVER.BATCH_SIZE": (256, ">= 2"),  # images a step, over all processes
    "SOLVER.EPOCHS": (200, ">= 1"),
    # stop the schedule after so many steps instead of EPOCHS; 0: off
    "SOLVER.MAX_STEPS": (0, ">= 0"),
    # at REFERENCE_BATCH; the rate is scaled linearly with the batch
    "SOLVER.BASE_LR": (0.03, "> 0"),
    "SOLVER.REFERENCE_BATCH": (256, ">= 1"),
    "SOLVER.MOMENTUM": (0.9, ">= 0, <= 1"),
    "SOLVER.WEIGHT_DECAY": (1e-4, ">= 0"),
    "SOLVER.END_WEIGHT_DECAY": -1.0,  # where a cosine takes it, per step; below 0: constant
    "SOLVER.CLIP_EACH": (0.0, ">= 0"),  # largest norm of each tensor's gradient; 0: off
    "SOLVER.PLAIN_1D": False,  # biases and norms: no weight decay, and no adaptation by lars
    "SOLVER.SCHEDULE": ("cosine", ("cosine", "step", "constant")),
    "SOLVER.STEPS": ((120, 160),),  # step: epochs at which the rate is multiplied by GAMMA
    "SOLVER.GAMMA": (0.1, ">= 0, <= 1"),
    "SOLVER.PER": ("epoch", ("epoch", "step")),  # the schedule moves per: epoch (MoCo), step
    "SOLVER.WARMUP_EPOCHS": (0.0, ">= 0"),  # linear warm-up per step, before the schedule
    "SOLVER.WARMUP_FACTOR": (0.01, ">= 0, <= 1"),  # of the rate at step 0 of the warm-up
    # the peak is the warm-up's last step and the first after (DINO)
    "SOLVER.WARMUP_INCLUSIVE": False,
    "SOLVER.END_LR": (0.0, ">= 0"),  # cosine: the rate at the end
    # consecutive steps with a NaN or infinite loss or gradient before a stop
    "SOLVER.MAX_SKIPPED": (5, ">= 1"),
    "DEVICE": ("auto", ("auto", "cpu", "cuda")),
    # off, fp16 (with loss scaling), bf16; losses are float32 in any case
    "AMP": ("off", ("off", "fp16", "bf16")),
    "CHANNELS_LAST": False,  # faster on GPUs with AMP, slower on CPUs
    "COMPILE": False,  # torch.compile the backbones
    "CHECKPOINT.PERIOD": (1.0, "> 0"),  # epochs between checkpoints
    "CHECKPOINT.STEPS": (0, ">= 0"),  # steps between checkpoints instead; 0: use PERIOD
    "CHECKPOINT.KEEP": (2, ">= 1"),  # the newest so many stay; older ones are deleted
    # epochs whose checkpoint stays for good (every so many); 0: none
    "CHECKPOINT.KEEP_EVERY": (0, ">= 0"),
    "LOG.PERIOD": (10, ">= 1"),  # steps between lines of metrics.jsonl
    # KNN: accuracy of nearest neighbours during the run; labels are read for this alone
    "KNN.PERIOD": (0.0, ">= 0"),  # epochs between measurements; 0: none
    "KNN.TRAIN": "",  # a folder of class folders: the images that vote
    "KNN.VAL": "",  # a folder of class folders: the images that are classified
    "KNN.MAX_TRAIN": (10000, ">= 0"),  # at most so many of them, evenly over the classes; 0: all
    "KNN.MAX_VAL": (2000, ">= 0"),
    "KNN.K": (20, ">= 1"),
    "KNN.TEMPERATURE": (0.07, "> 0"),  # a neighbour weighs exp(cosine / τ)
    # PROBE: mIoU of a linear layer on frozen positions during the run; labels: this alone
    "PROBE.PERIOD": (0.0, ">= 0"),  # epochs between measurements; 0: none
    "PROBE.IMAGES": "",  # a folder of images: the layer learns from them
    "PROBE.MASKS": "",  # a folder of their label images, PNG files of the same names
    # a folder of images: the layer is judged by them; "": by a held-out quarter
    "PROBE.VAL_IMAGES": "",
    "PROBE.VAL_MASKS": "",  # a folder of their label images
    "PROBE.CLASSES": "",  # a text file of the classes' names; "": numbered up to the largest label
    "PROBE.LEVELS": ((),),  # of the backbone; (): layer3 and layer4, of a ViT block12
    "PROBE.MAX_TRAIN": (200, ">= 0"),  # at most so many images, evenly over their names; 0: all
    "PROBE.MAX_VAL": (100, ">= 0"),
}
DECLARED = {  # of every option its default, and which values it may take where that is limited
    name: declared if isinstance(declared, tuple) else (declared,)
    for name, declared in OPTIONS.items()
}
C = CfgNode()
CHOICES: dict[str, tuple[str, ...]] = {}
RANGES: dict[str, tuple[int, int | None]] = {}  # at least, at most (None: no limit)
ABOVE_ZERO: tuple[str, ...] = ()
for _name, (_default, *_allowed) in DECLARED.items():
    *_group, _option = _name.split(".")
    _node = C.setdefault(_group[0], CfgNode()) if _group else C
    _node[_option] = _default
    for _rule in _allowed:
        if isinstance(_rule, tuple):
            CHOICES[_name] = _rule
            continue
        _limits = dict(part.split() for part in _rule.split(", "))  # "> 0, <= 1"
        if ">" in _limits:
            ABOVE_ZERO += (_name,)
        if ">=" in _limits or "<=" in _limits:
            _most = _limits.get("<=")
            RANGES[_name] = (int(_limits.get(">=", 0)), int(_most) if _most else None)
C.METHOD.OPTIONS = CfgNode()  # what a method of your own takes; any keys
TWIN_AT_MOST = _declared("TWIN_AT_MOST")  # in the twin of a config for the scenes

PATHS = (  # options in which '~' is the home folder
    "OUTPUT_DIR",
    "DATA.PATH",
    "DATA.CLASSES",
    "DATA.ANNOTATIONS",
    "BACKBONE.WEIGHTS",
    "KNN.TRAIN",
    "KNN.VAL",
    "PROBE.IMAGES",
    "PROBE.MASKS",
    "PROBE.VAL_IMAGES",
    "PROBE.VAL_MASKS",
    "PROBE.CLASSES",
)
OWN = ("VIEWS.RECIPE", "BACKBONE.NAME")  # of these also path/to/file.py:Name
STRIDE = 32  # pixels a position of the last level, in every ResNet
PATCH = 16  # pixels a position, in every ViT
