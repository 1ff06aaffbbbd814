"""Every option of ``densessl pretrain``: its default and one line on its meaning.

The defaults are MoCo-v2 on ImageNet as its authors ran it. Below the options: which values they
may take.
"""

from fvcore.common.config import CfgNode

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

C.MOCO = CfgNode()  # every method with a queue
C.MOCO.DIM = 128  # projection channels D
C.MOCO.HIDDEN = 2048  # hidden channels of the projector; 0: one linear layer (MoCo-v1)
C.MOCO.QUEUE = 65536  # keys in the queue, K
C.MOCO.MOMENTUM = 0.999  # of the momentum encoder, m
C.MOCO.TEMPERATURE = 0.2  # τ
C.MOCO.SHUFFLE = True  # ShuffleBN: permute the key batch before the momentum encoder
C.MOCO.SYMMETRIC = False  # also view 2 as query against view 1 as key
C.MOCO.SYMMETRIC_REDUCTION = "mean"  # of the two directions: mean, sum
C.MOCO.SYMMETRIC_ENQUEUE = "both"  # keys of which direction enter the queue: both, second

C.SIMSIAM = CfgNode()
C.SIMSIAM.DIM = 2048  # channels of the projections z and of the predictions p
C.SIMSIAM.HIDDEN = 2048  # hidden channels of the projector
C.SIMSIAM.PREDICTOR_HIDDEN = 512
C.SIMSIAM.FIX_PREDICTOR_LR = True  # the predictor's rate stays at its peak

C.BYOL = CfgNode()
C.BYOL.DIM = 256  # channels of projection and prediction
C.BYOL.HIDDEN = 4096  # hidden channels of projector and predictor
C.BYOL.MOMENTUM = 0.996  # of the momentum encoder at the start; rises to 1 by a cosine

C.SIMCLR = CfgNode()
C.SIMCLR.DIM = 128  # projection channels
C.SIMCLR.HIDDEN = 2048  # hidden channels of the projector
C.SIMCLR.TEMPERATURE = 0.1  # τ

C.SWAV = CfgNode()
C.SWAV.DIM = 128  # projection channels
C.SWAV.HIDDEN = 2048  # hidden channels of the projector
C.SWAV.PROTOTYPES = 3000
C.SWAV.TEMPERATURE = 0.1  # τ
C.SWAV.EPSILON = 0.05  # of Sinkhorn-Knopp: smoothness of the codes
C.SWAV.ITERATIONS = 3  # of Sinkhorn-Knopp
C.SWAV.QUEUE = 0  # projections of earlier steps that help to balance the codes; 0: none
C.SWAV.QUEUE_START = 15  # epoch from which the queue is filled; it is used once it is full
C.SWAV.FREEZE_STEPS = 313  # first steps in which the prototypes do not move

C.DINO = CfgNode()  # DINO and SCFS
C.DINO.PROTOTYPES = 65536  # outputs of the head, K
C.DINO.HIDDEN = 2048  # hidden channels of the head
C.DINO.BOTTLENECK = 256  # channels that the last layer compares with its prototypes
C.DINO.HEAD_BN = False  # batch norm in the head
C.DINO.NORM_LAST_LAYER = True  # prototypes of length 1
C.DINO.FREEZE_LAST_LAYER = 1  # epochs in which the last layer rests
C.DINO.MOMENTUM = 0.996  # of the teacher at the start; rises to 1 by a cosine
C.DINO.CENTER_MOMENTUM = 0.9
C.DINO.GLOBAL_PAIRS = True  # each global view against the other (SCFS Table 7: G_d2G_d)
C.DINO.STUDENT_TEMPERATURE = 0.1
C.DINO.TEACHER_TEMPERATURE = 0.04  # after its warm-up
C.DINO.WARMUP_TEACHER_TEMPERATURE = 0.04  # at the start
C.DINO.WARMUP_TEACHER_EPOCHS = 0  # epochs from the one to the other

C.SCFS = CfgNode()
C.SCFS.LEVELS = ("layer2", "layer3", "layer4")  # the paper's Res2, Res3, Res4; ViT: block4, 8, 12
C.SCFS.TARGET = "search"  # of a local crop: search, map (DINO with multi-layer), roi (RoI-crop)
C.SCFS.SEARCH_VIEWS = "both"  # global views that are searched: both (eq. 9, summed), first (code)
C.SCFS.LEVEL_WEIGHT = 0.5  # of the terms of a level (code)
C.SCFS.LEVEL_GLOBAL = True  # also each global view against the other, at every level
C.SCFS.CENTER_LOCAL = False  # centre the targets of local crops, too
C.SCFS.DIM = 256  # outputs of a level's head

C.DENSE = CfgNode()  # the dense branch of dense methods
C.DENSE.WEIGHT = 0.5  # λ: loss = (1 − λ) image + λ dense
C.DENSE.WARMUP_STEPS = 0  # λ is 0 for so many steps
C.DENSE.DIM = 128  # channels of the dense projection
C.DENSE.HIDDEN = 2048  # hidden channels of the dense projector
C.DENSE.TEMPERATURE = 0.2  # τ of the dense loss
C.DENSE.CORRESPONDENCE = "set & cosine>0.2 | geometry<0.5 | nearest"  # of dense, dense_simsiam

C.SETSIM = CfgNode()
C.SETSIM.SET = True  # Set: salient set × salient set (eq. 5)
C.SETSIM.STRATEGY = "set2set"  # pairs of the sets: set2set, random, sort, hungarian (Table 2)
C.SETSIM.STATISTIC = "abs_sum"  # attention: abs_sum (eq. 3), square_mean (released code)
C.SETSIM.THRESHOLD = 0.7  # δ: a position is salient from this attention on
C.SETSIM.MIN_COSINE = 0.0  # drop set pairs of lower backbone cosine; 0: off (released script: 0.2)
C.SETSIM.GEOMETRY_THRESHOLD = 0.5  # Geo: distance below which positions match; 0: off
C.SETSIM.GEOMETRY_FRAME = "pixels"  # pixels: exact crop edges; pixpro: the released frame
C.SETSIM.NEAREST = True  # NN: add the nearest neighbour (eq. 6–7)
C.SETSIM.NEAREST_ROWS = "salient"  # which queries get it: salient (eq. 7), valid (has a positive)
C.SETSIM.REDUCTION = "mean"  # over the queries of an image: mean (released code), sum (eq. 8)

C.HOUGH = CfgNode()  # HoughCL
C.HOUGH.FEATURES = "projected"  # what votes: projected (the poster), backbone (as in DenseCL)
C.HOUGH.EXPONENT = 3.0  # d: appearance is max(cosine, 0)^d
C.HOUGH.SIGMA = 1.0  # of the Gaussian over offsets, in positions
C.HOUGH.PASSES = 2  # of the Gaussian: 2 (the poster's formula), 1 (hyperpixel flow's code)
C.HOUGH.UNFLIP = False  # undo the views' flips before voting, so that one shift can explain them

C.PIXPRO = CfgNode()
C.PIXPRO.DIM = 256  # channels of the projection
C.PIXPRO.HIDDEN = 4096  # hidden channels of projector and instance predictor
C.PIXPRO.MOMENTUM = 0.99  # of the momentum encoder at the start; rises to 1 by a cosine
C.PIXPRO.THRESHOLD = 0.7  # distance, in cell diagonals, below which positions match
C.PIXPRO.FRAME = "pixpro"  # of the distance: pixpro (official), pixels (exact crop edges)
C.PIXPRO.EXPONENT = 2.0  # γ: similarity is max(cosine, 0)^γ
C.PIXPRO.TRANSFORM_LAYERS = 1  # of the propagation's value transform g: 0, 1, 2
C.PIXPRO.INSTANCE_WEIGHT = 0.0  # of the loss of whole images; 0: no instance branch

C.VADER = CfgNode()  # its FPN has RESIM.FPN_DIM channels
C.VADER.DIM = 128  # channels of a pixel's embedding
C.VADER.POINTS = 32  # pairs of points an image
C.VADER.TEMPERATURE = 0.07  # τ

C.RESIM = CfgNode()
C.RESIM.LEVELS = "c4"  # regions on: c4 (layer3 and a head), fpn (strides 16 and 8 of an FPN)
C.RESIM.C4_HEAD = "linear"  # of c4: linear (1×1 convolution), mlp (two), none
C.RESIM.DIM = 128  # channels of c4's head
C.RESIM.FPN_DIM = 256  # channels of the FPN
C.RESIM.FPN_NORM = ""  # of the FPN's convolutions: "" or BN (per process)
C.RESIM.WINDOW = (48, 32)  # side and stride of the windows at stride 16, in pixels of the view
C.RESIM.WINDOW_P3 = (32, 24)  # the same at stride 8
C.RESIM.PLACEMENT = "grid"  # of windows: grid (released code), overlap (the paper's words)
C.RESIM.INCLUSIVE = False  # a window may end on the right and lower edge of a view
C.RESIM.NEGATIVES = "cells"  # 3×3 cells of all key maps (released), regions (the paper)
C.RESIM.GATHER_P3 = False  # negatives at stride 8 from all processes (released: of the own only)
C.RESIM.ALIGNED = False  # shift regions by half a cell onto the cells' centres (released: not)
C.RESIM.TEMPERATURE = 0.2  # τ of the regions
C.RESIM.IMAGE_WEIGHT = 1.0  # λ: loss = regions + λ image

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
METHODS = (  # besides path/to/file.py:Class
    *("moco", "simsiam", "byol", "simclr", "swav", "setsim", "setsim_simsiam", "densecl"),
    *("houghcl", "pixpro", "vader", "resim", "dino", "scfs", "dense", "dense_simsiam"),
)
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
    "MOCO.SYMMETRIC_REDUCTION": ("mean", "sum"),
    "MOCO.SYMMETRIC_ENQUEUE": ("both", "second"),
    "SETSIM.STRATEGY": ("set2set", "random", "sort", "hungarian"),
    "SETSIM.STATISTIC": ("abs_sum", "square_mean"),
    "SETSIM.GEOMETRY_FRAME": ("pixels", "pixpro"),
    "SETSIM.NEAREST_ROWS": ("valid", "salient"),
    "SETSIM.REDUCTION": ("mean", "sum"),
    "SCFS.TARGET": ("search", "map", "roi"),
    "SCFS.SEARCH_VIEWS": ("both", "first"),
    "HOUGH.FEATURES": ("projected", "backbone"),
    "PIXPRO.FRAME": ("pixpro", "pixels"),
    "RESIM.LEVELS": ("c4", "fpn"),
    "RESIM.C4_HEAD": ("linear", "mlp", "none"),
    "RESIM.FPN_NORM": ("", "BN"),
    "RESIM.PLACEMENT": ("grid", "overlap"),
    "RESIM.NEGATIVES": ("cells", "regions"),
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
    "MOCO.DIM": (1, None),
    "MOCO.HIDDEN": (0, None),
    "MOCO.QUEUE": (1, None),
    "MOCO.MOMENTUM": (0, 1),
    "SIMSIAM.DIM": (1, None),
    "SIMSIAM.HIDDEN": (1, None),
    "SIMSIAM.PREDICTOR_HIDDEN": (1, None),
    "BYOL.DIM": (1, None),
    "BYOL.HIDDEN": (1, None),
    "BYOL.MOMENTUM": (0, 1),
    "SIMCLR.DIM": (1, None),
    "SIMCLR.HIDDEN": (1, None),
    "SWAV.DIM": (1, None),
    "SWAV.HIDDEN": (1, None),
    "SWAV.PROTOTYPES": (2, None),
    "SWAV.ITERATIONS": (1, None),
    "SWAV.QUEUE": (0, None),
    "SWAV.QUEUE_START": (0, None),
    "SWAV.FREEZE_STEPS": (0, None),
    "BACKBONE.DROP_PATH": (0, 1),
    "DINO.PROTOTYPES": (2, None),
    "DINO.HIDDEN": (1, None),
    "DINO.BOTTLENECK": (1, None),
    "DINO.FREEZE_LAST_LAYER": (0, None),
    "DINO.MOMENTUM": (0, 1),
    "DINO.CENTER_MOMENTUM": (0, 1),
    "DINO.WARMUP_TEACHER_EPOCHS": (0, None),
    "SCFS.LEVEL_WEIGHT": (0, None),
    "SCFS.DIM": (2, None),
    "SOLVER.CLIP_EACH": (0, None),
    "DENSE.WEIGHT": (0, 1),
    "DENSE.WARMUP_STEPS": (0, None),
    "DENSE.DIM": (1, None),
    "DENSE.HIDDEN": (0, None),
    "SETSIM.THRESHOLD": (0, 1),
    "SETSIM.MIN_COSINE": (-1, 1),
    "SETSIM.GEOMETRY_THRESHOLD": (0, None),
    "HOUGH.PASSES": (1, 2),
    "PIXPRO.DIM": (1, None),
    "PIXPRO.HIDDEN": (1, None),
    "PIXPRO.MOMENTUM": (0, 1),
    "PIXPRO.TRANSFORM_LAYERS": (0, 2),
    "PIXPRO.INSTANCE_WEIGHT": (0, None),
    "VADER.DIM": (1, None),
    "VADER.POINTS": (1, None),
    "RESIM.DIM": (1, None),
    "RESIM.FPN_DIM": (1, None),
    "RESIM.IMAGE_WEIGHT": (0, None),
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
ABOVE_ZERO = (
    *("SOLVER.BASE_LR", "SOLVER.LARS_TRUST", "CHECKPOINT.PERIOD"),
    *("MOCO.TEMPERATURE", "SIMCLR.TEMPERATURE", "SWAV.TEMPERATURE", "SWAV.EPSILON"),
    *("DINO.STUDENT_TEMPERATURE", "DINO.TEACHER_TEMPERATURE", "DINO.WARMUP_TEACHER_TEMPERATURE"),
    *("DENSE.TEMPERATURE", "HOUGH.EXPONENT", "HOUGH.SIGMA", "PIXPRO.THRESHOLD", "PIXPRO.EXPONENT"),
    *("VADER.TEMPERATURE", "RESIM.TEMPERATURE", "SETSIM.THRESHOLD", "KNN.TEMPERATURE"),
)
