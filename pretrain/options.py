"""Every option of ``densessl pretrain``: its default, what it may be, one line on its meaning.

Those of a method lie at the top of its file in ``methods/``; :data:`METHODS` names the files. The
defaults are MoCo-v2 on ImageNet as its authors ran it. The rules are those of ``core/options.py``;
``free`` options may differ between the sessions of a run: they change where it runs, what it says
or how often it saves, but not which numbers it computes (beyond rounding on another device).
"""

import ast
from pathlib import Path
from typing import Any

from fvcore.common.config import CfgNode

from densessl.core import options
from densessl.core.external import FORM

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
    "distill": "distill.Distill",
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
BACKBONES = (
    "resnet18",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "wide_resnet50_2",
    "wide_resnet101_2",
    "resnext50_32x4d",
    "resnext101_32x8d",
    "resnext101_64x4d",
    "vit_tiny",
    "vit_small",
    "vit_base",
)
TIMM = "timm/NAME"  # any network of timm's with feature maps
OPTIONS = {
    "OUTPUT_DIR": ("output", "path, free"),  # the run's folder; a run found there resumes
    "SEED": (0, ">= 0"),  # all that is random is a function of it, epoch, sample and step
    # folder: a tree of images; list: a text file; coco: a JSON; shards: tars
    "DATA.SOURCE": ("folder", ("folder", "list", "coco", "shards")),
    # the folder, the list file, COCO's folder of images, the shards; several: a:b; s3://…, gs://,
    # hf:// go, too
    "DATA.PATH": ("", "path, free"),
    # of s3://, gs://, hf://: the folder that keeps what was fetched; "": ~/.cache/densessl/remote
    "DATA.CACHE": ("", "path, free"),
    # folder only: these class folders: imagenet100, or a text file of their names
    "DATA.CLASSES": ("", "path, free"),
    # coco only: the instances JSON that names the images (labels are not read)
    "DATA.ANNOTATIONS": ("", "path, free"),
    "DATA.WORKERS": (4, ">= 0, free"),  # loader processes; any number gives the same run
    "DATA.RANGE": "auto",  # values that become black and white where not of 8 bits: 0,4095; or auto
    # of an image; of others than 3: TIFF, NPY, PNG as they are stored, colours unknown
    "DATA.CHANNELS": (3, ">= 1"),
    # each channel in a file of its own: what their names differ in, as _B02,_B03,_B04,_B08
    "DATA.CHANNEL_FILES": "",
    # of values in [0, 1], a number a channel; auto: measured; "": ImageNet's of 3, else auto
    "DATA.MEAN": "",
    "DATA.STD": "",  # deviation; "" with MEAN auto
    # of an image; a larger one is read at reduced scale; 0: no limit
    "DATA.MAX_PIXELS": (178956970, ">= 0"),
    # side of a tile in pixels: a larger image counts as the tiles that cover it; 0: whole images
    "DATA.TILE": (0, ">= 0"),
    # frames that are taken of each second of a video, each as an image; 0: videos are left out
    "DATA.FRAME_RATE": (0.0, ">= 0, <= 1000"),
    "DATA.TRUNCATED": False,  # use truncated JPEGs as far as they go; else they are unreadable
    # seconds that a batch may take before the run stops; 0: no limit
    "DATA.TIMEOUT": (120.0, ">= 0, free"),
    # share of images that may be unreadable before the run stops
    "DATA.MAX_UNREADABLE": (0.05, ">= 0, <= 1, free"),
    "VIEWS.RECIPE": ("moco_v2", (*RECIPES, FORM)),  # of views/recipes.py
    "VIEWS.SIZE": (224, ">= 8"),  # side of a global view in pixels
    "VIEWS.SCALE": ((),),  # area of a global crop over that of the image; () is the recipe's
    # local views an image beside the two global ones (multi-crop)
    "VIEWS.LOCAL_CROPS": (0, ">= 0"),
    "VIEWS.LOCAL_SIZE": (96, ">= 8"),  # side of a local view in pixels
    "VIEWS.LOCAL_SCALE": ((0.05, 0.14),),  # area of a local crop over that of the image
    "BACKBONE.NAME": ("resnet50", (*BACKBONES, TIMM, FORM)),
    # start from its backbone: any file that densessl convert takes
    "BACKBONE.WEIGHTS": ("", "path, free"),
    # split: one process acts as several GPUs; BN: per process; SyncBN
    "BACKBONE.NORM": ("split", ("split", "BN", "SyncBN")),
    "BACKBONE.GROUP_SIZE": (32, ">= 2"),  # split: images a normalisation group (MoCo: 32 a GPU)
    "BACKBONE.ZERO_INIT_RESIDUAL": False,  # start every residual block as the identity
    # ViT, the student alone: share of dropped paths in the last block
    "BACKBONE.DROP_PATH": (0.1, ">= 0, <= 1"),
    "METHOD.NAME": ("moco", (*METHODS, FORM)),  # docs/methods.md lists them
    **_declared("OPTIONS"),
    "SOLVER.OPTIMIZER": ("sgd", ("sgd", "lars", "adamw")),
    # lars: share of its weight by which a layer may move, over the rate
    "SOLVER.LARS_TRUST": (0.001, "> 0"),
    "SOLVER.BATCH_SIZE": (256, ">= 2"),  # images a step, over all processes
    # parts of a step that are computed one after the other, each in so much less memory
    "SOLVER.ACCUMULATE": (1, ">= 1"),
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
    "SOLVER.CLIP_NORM": (0.0, ">= 0"),  # largest norm of all gradients together; 0: off
    "SOLVER.PLAIN_1D": False,  # biases and norms: no weight decay, and no adaptation by lars
    "SOLVER.SCHEDULE": ("cosine", ("cosine", "step", "constant")),
    # step: epochs at which the rate is multiplied by GAMMA
    "SOLVER.STEPS": ((120, 160), "> 0, whole, rising"),
    "SOLVER.GAMMA": (0.1, ">= 0, <= 1"),
    "SOLVER.PER": ("epoch", ("epoch", "step")),  # the schedule moves per: epoch (MoCo), step
    "SOLVER.WARMUP_EPOCHS": (0.0, ">= 0"),  # linear warm-up per step, before the schedule
    "SOLVER.WARMUP_FACTOR": (0.01, ">= 0, <= 1"),  # of the rate at step 0 of the warm-up
    # the peak is the warm-up's last step and the first after (DINO)
    "SOLVER.WARMUP_INCLUSIVE": False,
    "SOLVER.END_LR": (0.0, ">= 0"),  # cosine: the rate at the end
    # consecutive steps with a NaN or infinite loss or gradient before a stop
    "SOLVER.MAX_SKIPPED": (5, ">= 1, free"),
    "DEVICE": ("auto", ("auto", "cpu", "cuda"), "free"),
    # fp16: with loss scaling; auto: bf16 on GPUs from Ampere on; losses are float32 in any case
    "AMP": ("auto", ("auto", "off", "fp16", "bf16")),
    # auto: on GPUs from Ampere on; slower on most CPUs
    "CHANNELS_LAST": ("auto", ("auto", "on", "off"), "free"),
    "COMPILE": (False, "free"),  # torch.compile the backbones
    "CHECKPOINT.PERIOD": (1.0, "> 0, free"),  # epochs between checkpoints
    "CHECKPOINT.STEPS": (0, ">= 0, free"),  # steps between checkpoints instead; 0: use PERIOD
    "CHECKPOINT.KEEP": (2, ">= 1, free"),  # the newest so many stay; older ones are deleted
    # epochs whose checkpoint stays for good (every so many); 0: none
    "CHECKPOINT.KEEP_EVERY": (0, ">= 0, free"),
    # seconds that no process may make progress before all are ended; 0: no limit
    "STALL_TIMEOUT": (600.0, ">= 0, free"),
    "LOG.PERIOD": (10, ">= 1, free"),  # steps between lines of metrics.jsonl
    "LOG.WANDB": ("", "free"),  # a project of Weights & Biases, which gets the lines, too
    "LOG.MLFLOW": ("", "free"),  # an experiment of MLflow, which gets the lines, too
    # KNN: accuracy of nearest neighbours during the run; labels are read for this alone
    "KNN.PERIOD": (0.0, ">= 0, free"),  # epochs between measurements; 0: none
    "KNN.TRAIN": ("", "path, free"),  # a folder of class folders: the images that vote
    "KNN.VAL": ("", "path, free"),  # a folder of class folders: the images that are classified
    # at most so many of them, evenly over the classes; 0: all
    "KNN.MAX_TRAIN": (10000, ">= 0, free"),
    "KNN.MAX_VAL": (2000, ">= 0, free"),
    "KNN.K": (20, ">= 1, free"),
    "KNN.TEMPERATURE": (0.07, "> 0, free"),  # a neighbour weighs exp(cosine / τ)
    # PROBE: mIoU of a linear layer on frozen positions during the run; labels: this alone
    "PROBE.PERIOD": (0.0, ">= 0, free"),  # epochs between measurements; 0: none
    "PROBE.IMAGES": ("", "path, free"),  # a folder of images: the layer learns from them
    # a folder of their label images, PNG files of the same names
    "PROBE.MASKS": ("", "path, free"),
    # a folder of images: the layer is judged by them; "": by a held-out quarter
    "PROBE.VAL_IMAGES": ("", "path, free"),
    "PROBE.VAL_MASKS": ("", "path, free"),  # a folder of their label images
    # a text file of the classes' names; "": numbered up to the largest label
    "PROBE.CLASSES": ("", "path, free"),
    "PROBE.LEVELS": ((), "free"),  # of the backbone; (): layer3 and layer4, of a ViT block12
    # at most so many images, evenly over their names; 0: all
    "PROBE.MAX_TRAIN": (200, ">= 0, free"),
    "PROBE.MAX_VAL": (100, ">= 0, free"),
}
DECLARED = options.declared(OPTIONS)
FREE = tuple(name for name, each in DECLARED.items() if "free" in each.words)
C = CfgNode(options.nested({name: each.default for name, each in DECLARED.items()}))
C.METHOD.OPTIONS = CfgNode()  # what a method of your own takes; any keys
TWIN_AT_MOST = _declared("TWIN_AT_MOST")  # in the twin of a config for the scenes
TWIN_KEEPS = _declared("TWIN_KEEPS")  # for a detector to take its weights; of which METHOD.NAME
STRIDE = 32  # pixels a position of the last level, in every ResNet
PATCH = 16  # pixels a position, in every ViT
