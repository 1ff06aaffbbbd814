"""Every option of ``densessl pretrain``: its default and one line on its meaning.

Those of a method lie at the top of its file in ``methods/``, with what they may be: :data:`METHODS`
names the files. The defaults are MoCo-v2 on ImageNet as its authors ran it. Below the options:
which values they may take.
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


C = CfgNode()
C.OUTPUT_DIR = "output"  # the run's folder; a run found there goes on
C.SEED = 0  # everything random is a function of this, the epoch, the sample and the step

C.DATA = CfgNode()
C.DATA.SOURCE = "folder"  # folder: a tree of images; list: a text file; coco: a JSON; shards: tars
C.DATA.PATH = ""  # the folder, the list file, COCO's folder of images, the shards; several: a:b
C.DATA.CLASSES = ""  # folder only: these class folders: imagenet100, or a text file of their names
C.DATA.ANNOTATIONS = ""  # coco only: the instances JSON that names the images (labels are not read)
C.DATA.WORKERS = 4  # loader processes; any number gives the same run
C.DATA.RANGE = "auto"  # values that become black and white where not of 8 bits: 0,4095; or auto
C.DATA.MAX_PIXELS = 178956970  # of an image; a larger one is read at reduced scale; 0: no limit
C.DATA.TIMEOUT = 120.0  # seconds that a batch may take before the run stops; 0: no limit
C.DATA.MAX_UNREADABLE = 0.05  # share of images that may be unreadable before the run stops

C.VIEWS = CfgNode()
C.VIEWS.RECIPE = "moco_v2"  # the augmentations: of views/recipes.py, or path/to/file.py:Name
C.VIEWS.SIZE = 224  # side of a global view in pixels
C.VIEWS.SCALE = ()  # area of a global crop over that of the image; () is the recipe's
C.VIEWS.LOCAL_CROPS = 0  # local views an image beside the two global ones (multi-crop)
C.VIEWS.LOCAL_SIZE = 96  # side of a local view in pixels
C.VIEWS.LOCAL_SCALE = (0.05, 0.14)  # area of a local crop over that of the image

C.BACKBONE = CfgNode()
C.BACKBONE.NAME = "resnet50"  # resnet18, 50, 101; vit_tiny, _small, _base; path/to/file.py:Name
C.BACKBONE.WEIGHTS = ""  # start from its backbone: any file that densessl convert takes
C.BACKBONE.NORM = "split"  # split: one process acts as several GPUs; BN: per process; SyncBN
C.BACKBONE.GROUP_SIZE = 32  # split: images a normalisation group (MoCo: 32 a GPU)
C.BACKBONE.ZERO_INIT_RESIDUAL = False  # start every residual block as the identity
C.BACKBONE.DROP_PATH = 0.1  # ViT, the student alone: share of dropped paths in the last block

C.METHOD = CfgNode()
C.METHOD.NAME = "moco"  # a name that docs/methods.md lists, or your own: path/to/file.py:Class
C.METHOD.OPTIONS = CfgNode()  # what a method of your own takes; any keys

OF_METHODS = {  # of each: its default, and which values it may take where that is limited
    name: declared if isinstance(declared, tuple) else (declared,)
    for name, declared in _declared("OPTIONS").items()
}
for _name, (_default, *_) in OF_METHODS.items():
    _group, _option = _name.split(".")
    C.setdefault(_group, CfgNode())[_option] = _default

C.SOLVER = CfgNode()
C.SOLVER.OPTIMIZER = "sgd"  # sgd, lars, adamw
C.SOLVER.LARS_TRUST = 0.001  # lars: share of its weight by which a layer may move, over the rate
C.SOLVER.BATCH_SIZE = 256  # images a step, over all processes
C.SOLVER.EPOCHS = 200
C.SOLVER.MAX_STEPS = 0  # stop the schedule after so many steps instead of EPOCHS; 0: off
C.SOLVER.BASE_LR = 0.03  # at REFERENCE_BATCH; the rate is scaled linearly with the batch
C.SOLVER.REFERENCE_BATCH = 256
C.SOLVER.MOMENTUM = 0.9
C.SOLVER.WEIGHT_DECAY = 1e-4
C.SOLVER.END_WEIGHT_DECAY = -1.0  # where a cosine takes it, per step; below 0: constant
C.SOLVER.CLIP_EACH = 0.0  # largest norm of each tensor's gradient; 0: off
C.SOLVER.PLAIN_1D = False  # biases and norms: no weight decay, and no adaptation by lars
C.SOLVER.SCHEDULE = "cosine"  # cosine, step, constant
C.SOLVER.STEPS = (120, 160)  # step: epochs at which the rate is multiplied by GAMMA
C.SOLVER.GAMMA = 0.1
C.SOLVER.PER = "epoch"  # the schedule moves per: epoch (MoCo), step
C.SOLVER.WARMUP_EPOCHS = 0.0  # linear warm-up per step, before the schedule
C.SOLVER.WARMUP_FACTOR = 0.01  # of the rate at step 0 of the warm-up
C.SOLVER.WARMUP_INCLUSIVE = False  # the peak is the warm-up's last step and the first after (DINO)
C.SOLVER.END_LR = 0.0  # cosine: the rate at the end
C.SOLVER.MAX_SKIPPED = 5  # consecutive steps with a NaN or infinite loss or gradient before a stop

C.DEVICE = "auto"  # auto, cpu, cuda
C.AMP = "off"  # off, fp16 (with loss scaling), bf16; losses are float32 in any case
C.CHANNELS_LAST = False  # faster on GPUs with AMP, slower on CPUs
C.COMPILE = False  # torch.compile the backbones

C.CHECKPOINT = CfgNode()
C.CHECKPOINT.PERIOD = 1.0  # epochs between checkpoints
C.CHECKPOINT.STEPS = 0  # steps between checkpoints instead; 0: use PERIOD
C.CHECKPOINT.KEEP = 2  # the newest so many stay; older ones are deleted
C.CHECKPOINT.KEEP_EVERY = 0  # epochs whose checkpoint stays for good (every so many); 0: none

C.LOG = CfgNode()
C.LOG.PERIOD = 10  # steps between lines of metrics.jsonl

C.KNN = CfgNode()  # accuracy of nearest neighbours during the run; labels are read for this alone
C.KNN.PERIOD = 0.0  # epochs between measurements; 0: none
C.KNN.TRAIN = ""  # a folder of class folders: the images that vote
C.KNN.VAL = ""  # a folder of class folders: the images that are classified
C.KNN.MAX_TRAIN = 10000  # at most so many of them, evenly over the classes; 0: all
C.KNN.MAX_VAL = 2000
C.KNN.K = 20
C.KNN.TEMPERATURE = 0.07  # a neighbour weighs exp(cosine / τ)

C.PROBE = CfgNode()  # mIoU of a linear layer on frozen positions during the run; labels: this alone
C.PROBE.PERIOD = 0.0  # epochs between measurements; 0: none
C.PROBE.IMAGES = ""  # a folder of images: the layer learns from them
C.PROBE.MASKS = ""  # a folder of their label images, PNG files of the same names
C.PROBE.VAL_IMAGES = (
    ""  # a folder of images: the layer is judged by them; "": by a held-out quarter
)
C.PROBE.VAL_MASKS = ""  # a folder of their label images
C.PROBE.CLASSES = ""  # a text file of the classes' names; "": numbered up to the largest label
C.PROBE.LEVELS = ()  # of the backbone; (): layer3 and layer4, of a ViT block12
C.PROBE.MAX_TRAIN = 200  # at most so many images, evenly over their names; 0: all
C.PROBE.MAX_VAL = 100


PATHS = (  # options in which '~' is the home folder
    *("OUTPUT_DIR", "DATA.PATH", "DATA.CLASSES", "DATA.ANNOTATIONS"),
    *("BACKBONE.WEIGHTS", "KNN.TRAIN", "KNN.VAL", "PROBE.IMAGES", "PROBE.MASKS"),
    *("PROBE.VAL_IMAGES", "PROBE.VAL_MASKS", "PROBE.CLASSES"),
)
STRIDE = 32  # pixels a position of the last level, in every ResNet
PATCH = 16  # pixels a position, in every ViT
CHOICES = {
    "DATA.SOURCE": ("folder", "list", "coco", "shards"),
    "VIEWS.RECIPE": (
        *("moco_v1", "moco_v2", "moco_v2_coord", "byol", "pixpro", "simclr", "dino", "swav"),
        *("resim", "moco_v2_same_flip"),
    ),
    "BACKBONE.NAME": (
        *("resnet18", "resnet50", "resnet101"),
        *("vit_tiny", "vit_small", "vit_base"),
    ),
    "BACKBONE.NORM": ("split", "BN", "SyncBN"),
    "SOLVER.OPTIMIZER": ("sgd", "lars", "adamw"),
    "SOLVER.SCHEDULE": ("cosine", "step", "constant"),
    "SOLVER.PER": ("epoch", "step"),
    "DEVICE": ("auto", "cpu", "cuda"),
    "AMP": ("off", "fp16", "bf16"),
}
OWN = ("VIEWS.RECIPE", "BACKBONE.NAME")  # of these also path/to/file.py:Name
RANGES = {  # at least, at most (None: no limit)
    "SEED": (0, None),
    "DATA.WORKERS": (0, None),
    "DATA.MAX_PIXELS": (0, None),
    "DATA.TIMEOUT": (0, None),
    "DATA.MAX_UNREADABLE": (0, 1),
    "VIEWS.SIZE": (8, None),
    "VIEWS.LOCAL_CROPS": (0, None),
    "VIEWS.LOCAL_SIZE": (8, None),
    "BACKBONE.GROUP_SIZE": (2, None),  # the variance of one image is 0
    "BACKBONE.DROP_PATH": (0, 1),
    "SOLVER.CLIP_EACH": (0, None),
    "SOLVER.BATCH_SIZE": (2, None),
    "SOLVER.EPOCHS": (1, None),
    "SOLVER.MAX_STEPS": (0, None),
    "SOLVER.REFERENCE_BATCH": (1, None),
    "SOLVER.MOMENTUM": (0, 1),
    "SOLVER.WEIGHT_DECAY": (0, None),
    "SOLVER.GAMMA": (0, 1),
    "SOLVER.WARMUP_EPOCHS": (0, None),
    "SOLVER.WARMUP_FACTOR": (0, 1),
    "SOLVER.END_LR": (0, None),
    "SOLVER.MAX_SKIPPED": (1, None),
    "CHECKPOINT.STEPS": (0, None),
    "CHECKPOINT.KEEP": (1, None),
    "CHECKPOINT.KEEP_EVERY": (0, None),
    "LOG.PERIOD": (1, None),
    "KNN.PERIOD": (0, None),
    "KNN.MAX_TRAIN": (0, None),
    "KNN.MAX_VAL": (0, None),
    "KNN.K": (1, None),
    "PROBE.PERIOD": (0, None),
    "PROBE.MAX_TRAIN": (0, None),
    "PROBE.MAX_VAL": (0, None),
}
ABOVE_ZERO = ("SOLVER.BASE_LR", "SOLVER.LARS_TRUST", "CHECKPOINT.PERIOD", "KNN.TEMPERATURE")
for _name, (_, *_allowed) in OF_METHODS.items():
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
TWIN_AT_MOST = _declared("TWIN_AT_MOST")  # in the twin of a config for the scenes
