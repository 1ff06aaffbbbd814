"""The options that the protocols need beside Detectron2's own."""

import copy

from densessl.decoding import MAX_PIXELS

DETECTORS = {  # and which node below MODEL has the classes and the thresholds of each
    "GeneralizedRCNN": "ROI_HEADS",
    "RetinaNet": "RETINANET",
    "FCOS": "FCOS",
}
FCOS = {  # of modeling/fcos.py: called as RetinaNet's, where those have them
    "NUM_CLASSES": 80,
    "IN_FEATURES": ["p3", "p4", "p5", "p6", "p7"],
    "NUM_CONVS": 4,  # of each subnet
    "NORM": "GN",
    "PRIOR_PROB": 0.01,
    # A level is for boxes whose farthest side is at a distance between two of them, in pixels, the
    # first for all that are nearer, and the last for all that are farther.
    "SIZES_OF_INTEREST": [64, 128, 256, 512],
    "CENTER_SAMPLING_RADIUS": 1.5,  # in strides
    "FOCAL_LOSS_ALPHA": 0.25,
    "FOCAL_LOSS_GAMMA": 2.0,
    "SCORE_THRESH_TEST": 0.05,
    "TOPK_CANDIDATES_TEST": 1000,  # of each level
    "NMS_THRESH_TEST": 0.6,
}

# The backbone of ViTDet: a plain network's map, images padded to a square (timm_backbone.py).
VITDET = "build_vitdet_backbone"
OPTIMIZERS = (SGD, ADAMW) = ("sgd", "adamw")

PRECISIONS = (FLOAT16, BFLOAT16) = ("float16", "bfloat16")  # of SOLVER.AMP

# DATALOADER.SAMPLER_TRAIN: each image once, or those of rare categories more often.
ONCE, REPEATING = SAMPLERS = ("TrainingSampler", "RepeatFactorTrainingSampler")


def add_options(cfg) -> None:
    """Add DenseSSL's keys, each with a default that changes nothing, to a Detectron2 config."""
    Node = type(cfg)
    model, solver = cfg.MODEL, cfg.SOLVER
    # Activations and convolution weights as NHWC: faster with AMP on tensor cores, the same model.
    model.CHANNELS_LAST = False
    # Whether the weights file's FPN goes into the detector's (ReSim-FPN^T), or starts fresh.
    model.FPN.TRANSFER = False
    # A network of timm's in the backbone's place (see backbone_choice.py); empty: the weights'.
    model.BACKBONE.TIMM = ""
    # Freeze the head's res5 too (its batch norm becomes FrozenBN); the norm after it is trained.
    model.ROI_HEADS.FREEZE_RES5 = False
    model.FCOS = Node(copy.deepcopy(FCOS))

    # Sums over the user's own annotation files (custom_det, custom_mask), so that records differ.
    cfg.DATASETS.CUSTOM = ""
    # Of known data sets the training images that keep their labels, as --labels and --data-seed
    # say: "10%" or a number; empty: all.
    cfg.DATASETS.LABELS, cfg.DATASETS.LABELS_SEED = "", 0

    # Seconds that a batch may take before the trial stops; 0: no limit.
    cfg.DATALOADER.TIMEOUT = 120

    # The user's file that registers data sets, heads and evaluators, set by --import alone; and of
    # the test sets the evaluator, where it is not that of their metadata: file.py:Name, or the name
    # of one of detectron2.evaluation.
    cfg.IMPORT = ""
    cfg.TEST.EVALUATOR = ""

    # A LazyConfig in place of Detectron2's keys (lazy_config.py): its file, and all of it as YAML.
    cfg.LAZY = Node({"FILE": "", "CONFIG": ""})

    head = model.SEM_SEG_HEAD  # of modeling/fcn_head.py; Detectron2's own heads ignore these
    head.NUM_CONVS = 2
    head.DILATION = 1  # of those convolutions
    head.CONCAT_INPUT = True  # one more convolution over the head's input beside their output
    head.DROPOUT = 0.1
    head.ALIGN_CORNERS = False
    head.AUX_IN_FEATURES = []  # empty: no auxiliary head
    head.AUX_CONVS_DIM = 256
    head.AUX_NUM_CONVS = 1
    head.AUX_LOSS_WEIGHT = 0.4

    # Images that are not of 8 bits: "LOW,HIGH" become black and white; "auto": from a sample of the
    # training images; empty: as in the weights' pretraining, else auto. And the most pixels of an
    # image: a larger one is read at reduced scale; 0: no limit.
    cfg.INPUT.RANGE = ""
    cfg.INPUT.MAX_PIXELS = MAX_PIXELS
    # Channels of your own images; 0: as the weights take them. Others than 3 are read as stored.
    cfg.INPUT.CHANNELS = 0
    cfg.INPUT.CHANNEL_FILES = ""  # each channel in a file of its own, as --channel-files says

    # Semantic segmentation's training images: resized into SCALE (long, short edge; empty: the
    # image's own size) times a ratio drawn evenly from RATIO_RANGE, cropped and padded to
    # INPUT.CROP.SIZE, distorted in colour.
    cfg.INPUT.SCALE = (2048, 512)
    cfg.INPUT.RATIO_RANGE = (0.5, 2.0)
    cfg.INPUT.CROP.SINGLE_CATEGORY_MAX_AREA = 1.0
    cfg.INPUT.PHOTOMETRIC_DISTORTION = False

    # Of AMP: Detectron2 knows float16 alone, whose loss is scaled; bfloat16 is for GPUs from Ampere
    # on, and for CPUs.
    solver.AMP.DTYPE = FLOAT16

    # Learning rate (BASE_LR - MIN_LR) * (1 - t / MAX_ITER) ** POLY_POWER + MIN_LR, with
    # LR_SCHEDULER_NAME PolyLR and no warm-up.
    solver.POLY_POWER = 0.9
    solver.MIN_LR = 0.0

    # Windows in place of the whole image at once, in pixels: an FCN averages the logits of its
    # input's, a detector merges what it finds in those of the image.
    cfg.TEST.SLIDING_WINDOW = Node({"ENABLED": False})
    cfg.TEST.SLIDING_WINDOW.SIZE = 769
    cfg.TEST.SLIDING_WINDOW.STRIDE = 513


def add_vitdet_options(cfg) -> None:
    """Add what ViTDet needs: only a config that names one of these keys has them."""
    # Large-scale jitter in place of INPUT.MIN_SIZE_TRAIN: the image is resized to fit into a square
    # of SIZE pixels times a ratio drawn evenly from SCALE, then cropped to SIZE; 0: none.
    cfg.INPUT.LSJ = type(cfg)({"SIZE": 0, "SCALE": (0.1, 2.0)})
    cfg.MODEL.BACKBONE.DROP_PATH = 0.0  # stochastic depth of a network of timm's, at its last block

    solver = cfg.SOLVER
    solver.OPTIMIZER = SGD
    solver.BETAS = (0.9, 0.999)  # of AdamW
    # With AdamW the rate of a ViT's block is this times that of the next one; 1: all have BASE_LR.
    solver.LAYER_DECAY = 1.0
