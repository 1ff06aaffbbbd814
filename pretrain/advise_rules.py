"""What suits so many images of such a size on such a machine: rules, each with its source.

Pure functions of numbers. "judgement" is the source of what nobody has measured.
"""

from fvcore.common.config import CfgNode

from . import config
from .advise_model import Advice, AdvisedOption, ImageStats, Machine
from .contradictions import LEAST_VIEW, horizon, momentum_option, option_of, starts
from .engine.schedules import scaled_lr, total_steps
from .methods import find_method
from .options import STRIDE

FEWEST = 4  # images; of fewer no two batches differ
QUEUE_FROM = 1000  # images; a quarter of fewer is no queue
QUEUE_SHARE = 4  # the queue holds one such part of the images, at most
EPOCH_STEPS = 8  # batches of an epoch, at least
LEAST_BATCH = 16  # images of a process, where there are that many: batch norm needs some
CPU_BATCH, CPU_VIEW = 64, 128  # at most, without a GPU
GROUP = 32  # images that are normalised together, MoCo's
LENGTHS = ((500_000, 200), (30_000, 800), (0, 1000))  # from so many images on: epochs
MOMENTA = (0.999, 0.996, 0.99, 0.95, 0.9)
HORIZON_SHARE = 20  # the momentum's horizon is one such part of the run, at most
START_SHARE = 10  # a warm-up is one such part of the run, at most
FEW_EPOCHS = 20  # below it a schedule that moves once an epoch has too few rates
CHECKPOINTS = 100  # of a run, about
IMAGE_BYTES = 0.16e9  # GPU memory of an image of 224 px in a step of a ResNet-50
GREY = 0.5  # share of images, from which on colours are said to be missing
LARGE = 4  # times the view's side: larger images are better read in tiles
FEW_IMAGES = 50_000
FEW_STEPS = 1000
SMALL_NETWORK = {"resnet50": "resnet18", "resnet101": "resnet18"}
SMALL_NETWORK |= {"vit_small": "vit_tiny", "vit_base": "vit_tiny"}

JUDGEMENT = "judgement"
CIFAR = "MoCo's CIFAR-10 demo (facebookresearch/moco, colab): 50,000 images"
MOCO_SPEED = "Chen et al. 2020 (MoCo-v2), Table 3"


def starting_config(images: ImageStats) -> tuple[str, str, str]:
    """The built-in config to start from, with its reason and source."""
    if images.number < QUEUE_FROM:
        return (
            "setsim_simsiam",
            "compares positions without a queue or a momentum encoder, for which "
            f"{images.number:,} images are too few; learns with small batches",
            "Wang et al. 2022 (SetSim), section 4.1; Chen and He 2021 (SimSiam), Table 2: "
            "66.1 with a batch of 64, 68.1 with 256",
        )
    return (
        "densecl",
        "compares positions as well as images, for less than 1 % more time than MoCo-v2; whether "
        "that helps on your data only a comparison tells: --config moco_v2",
        "Wang et al. 2021 (DenseCL); pretrained on COCO's 118,287 images 56.7 AP on VOC, "
        "MoCo-v2 54.7",
    )


def advise(
    images: ImageStats, machine: Machine, name: str = "", most_steps: int | None = None
) -> Advice:
    """Fit a config (``name``; by default by the number of images) to the images and the machine.

    ``most_steps``: of the whole run, where time is limited.
    """
    start, reason, source = starting_config(images)
    published = config.load(name or start)
    advice = Advice(name or start, published.clone(), published)
    if name:
        reason, source = f"asked for; {start} by default", JUDGEMENT
    advice.choices.append(AdvisedOption("--config", advice.name, reason, source))
    _network(advice, machine)
    _views(advice, images, machine)
    _batch(advice, images, machine)
    _queue(advice, images)
    _length(advice, images, most_steps)
    steps = run_steps(advice.cfg, images.number)
    _momentum(advice, steps)
    _rate(advice)
    _starts(advice, images, steps)
    _running(advice, images, machine)
    advice.notes = notes(images, machine, advice)
    return advice


def run_steps(cfg: CfgNode, images: int) -> int:
    """Steps of a whole run over so many images."""
    return total_steps(cfg.SOLVER, max(images // cfg.SOLVER.BATCH_SIZE, 1))


def _network(advice: Advice, machine: Machine) -> None:
    name = advice.cfg.BACKBONE.NAME
    if machine.gpus or name not in SMALL_NETWORK:
        advice.choose(
            "BACKBONE.NAME",
            name,
            "what the protocols of detection and segmentation take"
            if name == "resnet50"
            else f"as {advice.name} has it",
            "page 'Protocols' of the documentation" if name == "resnet50" else advice.name,
        )
        return
    resnet = name.startswith("resnet")
    advice.choose(
        "BACKBONE.NAME",
        SMALL_NETWORK[name],
        "no GPU: less than half of the work; the papers' results are those of larger networks",
        "1.8 against a ResNet-50's 4.1 billion operations (torchvision)" if resnet else JUDGEMENT,
    )


def _views(advice: Advice, images: ImageStats, machine: Machine) -> None:
    views = advice.published.VIEWS
    most = views.SIZE if machine.gpus else min(views.SIZE, CPU_VIEW)
    least = min(LEAST_VIEW, views.SIZE)
    size = max(min(int(images.side) // STRIDE * STRIDE, most), least)
    if images.side < least:
        reason = f"the images have about {images.side:g} px, but smaller views have one position"
    elif size == views.SIZE:
        reason = f"as {advice.name} has it; the images are large enough"
    elif size < most:
        reason = f"not more than the images have (about {images.side:g} px)"
    else:
        reason = "no GPU: the work grows with the area of the views"
    advice.choose("VIEWS.SIZE", size, reason, JUDGEMENT if size < views.SIZE else advice.name)
    if views.LOCAL_CROPS and size < views.SIZE:
        local = max(size * views.LOCAL_SIZE // views.SIZE // 16 * 16, 32)
        advice.choose("VIEWS.LOCAL_SIZE", local, "in proportion to VIEWS.SIZE", JUDGEMENT)


def _batch(advice: Advice, images: ImageStats, machine: Machine) -> None:
    """The batch, how many processes share it, and the groups of its batch norm."""
    cfg, published = advice.cfg, advice.published.SOLVER.BATCH_SIZE
    if cfg.SOLVER.ACCUMULATE > 1:
        advice.choose("SOLVER.ACCUMULATE", 1, "the batch is one that fits at once", JUDGEMENT)
    area = (cfg.VIEWS.SIZE / 224) ** 2
    room = int(0.8 * machine.gpu_bytes / (IMAGE_BYTES * area)) if machine.gpus else CPU_BATCH
    processes = max(machine.gpus, 1)
    while processes > 1 and _share(images, published, room, processes) < LEAST_BATCH:
        processes //= 2
    share = _share(images, published, room, processes)
    if share < LEAST_BATCH:  # on one process, few images
        share = min(_power(images.number // 2), LEAST_BATCH)
    batch, advice.processes = share * processes, processes
    steps = images.number // batch
    if batch == published:
        reason, source = f"as {advice.name} has it", advice.name
    elif share == _power(room) and share < published // processes:
        memory = f"a GPU of {machine.gpu_bytes / 1e9:.0f} GB"
        reason = f"what {memory} holds" if machine.gpus else "no GPU: larger ones are slow to see"
        parts = min(published, images.number // EPOCH_STEPS) // batch
        if machine.gpus and parts > 1 and find_method(cfg.METHOD.NAME).accumulates:
            reason += f" at once; {parts * batch} fit in parts: SOLVER.ACCUMULATE {parts}"
        source = f"{MOCO_SPEED}: 5.0 GB for 32 images of 224 px" if machine.gpus else JUDGEMENT
    else:
        reason, source = f"so that an epoch has {steps} different batches", JUDGEMENT
    if processes < machine.gpus:
        reason += f"; too few for more than {processes} of {machine.gpus} GPUs"
    advice.choose("SOLVER.BATCH_SIZE", batch, reason, source)
    if cfg.BACKBONE.NORM == "split":
        group = min(share, GROUP) if processes > 1 else min(max(share // 4, 8), GROUP, share)
        groups = batch // group
        advice.choose(
            "BACKBONE.GROUP_SIZE",
            group,
            f"{groups} groups of batch norm, between which keys are shuffled"
            if groups > 1
            else "one group of batch norm; the batch is too small for two",
            f"He et al. 2020 (MoCo), section 3.3; {CIFAR}, 4 % less without",
        )


def _share(images: ImageStats, published: int, room: int, processes: int) -> int:
    """Images a step of each of so many processes: a power of two."""
    return _power(min(published, images.number // EPOCH_STEPS) // processes, room)


def _power(*most: int) -> int:
    """The largest power of two that is at most each of ``most``, at least 1."""
    return 1 << max(min(most).bit_length() - 1, 0)


def _queue(advice: Advice, images: ImageStats) -> None:
    cfg = advice.cfg
    batch = cfg.SOLVER.BATCH_SIZE
    option = find_method(cfg.METHOD.NAME).queue_option
    published = option_of(cfg, option) if option else 0
    if not option or not published:
        return
    most = min(images.number // QUEUE_SHARE, published)
    queue = published if published <= most else batch * max(most // batch, 1)
    share, met = queue / images.number, own_keys(queue, images.number)
    advice.choose(
        option,
        queue,
        f"{share:.1%} of the images: {met:.1%} of the queries meet their own image's older key "
        f"as a negative (as many keys as images: {own_keys(1, 1):.0%})",
        f"counted: K²/2N²; {CIFAR}, more than 4,096 keys gain nothing",
    )


def own_keys(queue: int, images: int) -> float:
    """The share of queries whose own image's older key is still in the queue.

    Every epoch sees each of N images once, in another order. The image at place p of an epoch was
    at place p' of the one before, N − p' + p images ago; its key is among the K newest where that
    is at most K. Over all p and p' that is K²/2N² for K ≤ N, and 1 − (2N − K)²/2N² up to 2N.
    """
    share = queue / images
    if share <= 1:
        return share**2 / 2
    return 1 - max(2 - share, 0) ** 2 / 2


def _length(advice: Advice, images: ImageStats, most_steps: int | None) -> None:
    solver = advice.cfg.SOLVER
    number, epoch = images.number, images.number // solver.BATCH_SIZE
    epochs = next(epochs for least, epochs in LENGTHS if number >= least)
    sources = {
        200: "He et al. 2020 (MoCo)",
        800: f"Wang et al. 2021 (DenseCL) on COCO's 118,287; {CIFAR}, k-NN 82.6 % after 200, "
        "88.7 % after 800 epochs",
        1000: "the longest that papers train (SimCLR, BYOL); for so few images judgement",
    }
    reason, source = f"{epochs * epoch:,} steps", sources[epochs]
    if most_steps is not None and most_steps < epochs * epoch:
        reason = f"what the time allows, of {epochs} epochs"
        source = f"measured here; {source}"
        epochs = most_steps // epoch
        if not epochs:
            advice.choose("SOLVER.MAX_STEPS", max(most_steps, 1), f"{reason}: no epoch", source)
            advice.choose("SOLVER.PER", "step", "a rate for each step", JUDGEMENT)
            return
    advice.choose("SOLVER.EPOCHS", epochs, reason, source)
    if solver.MAX_STEPS:
        advice.choose("SOLVER.MAX_STEPS", 0, "SOLVER.EPOCHS says how long it is", JUDGEMENT)
    if solver.SCHEDULE == "step" and epochs != advice.published.SOLVER.EPOCHS:
        marks = f"the milestones {solver.STEPS} are those of another length; a cosine has none"
        advice.choose("SOLVER.SCHEDULE", "cosine", marks, "Chen et al. 2020 (MoCo-v2)")
    if epochs < FEW_EPOCHS and solver.PER == "epoch":
        advice.choose("SOLVER.PER", "step", "few epochs: a rate for each step", JUDGEMENT)


def _momentum(advice: Advice, steps: int) -> None:
    option = momentum_option(advice.cfg)
    if not option:
        return
    published = option_of(advice.cfg, option)
    fits = [m for m in MOMENTA if horizon(m) * HORIZON_SHARE <= steps * 1.0001 or m == MOMENTA[-1]]
    momentum = min(published, fits[0])
    advice.choose(
        option,
        momentum,
        f"a mean over {horizon(momentum):.0f} of {steps:,} steps; {published:g} is for longer runs"
        if momentum < published
        else f"a mean over {horizon(momentum):.0f} of {steps:,} steps",
        f"{CIFAR}, 0.99 in 19,400 steps; the longest mean of at most 1/{HORIZON_SHARE} of the run "
        "is judgement"
        if momentum < published
        else "He et al. 2020 (MoCo), section 4.1: 59.0 with 0.999, 57.8 with 0.99"
        if option == "MOCO.MOMENTUM"
        else advice.name,
    )


def _rate(advice: Advice) -> None:
    solver = advice.cfg.SOLVER
    scaled = f"{scaled_lr(solver):g} at {solver.BATCH_SIZE}, by the linear rule"
    advice.choose(
        "SOLVER.BASE_LR",
        solver.BASE_LR,
        f"at {solver.REFERENCE_BATCH} images; {scaled}",
        f"{advice.name}; Goyal et al. 2017",
    )


def _starts(advice: Advice, images: ImageStats, steps: int) -> None:
    """Warm-ups, and what rests at first: a tenth of the run at most."""
    epoch = max(images.number // advice.cfg.SOLVER.BATCH_SIZE, 1)
    for option, unit in starts(advice.cfg):
        length = option_of(advice.cfg, option)
        most = steps / START_SHARE / (epoch if unit == "epochs" else 1)
        if length <= most:
            continue
        shorter = round(most, 2) if isinstance(length, float) else int(most)
        advice.choose(option, shorter, f"a tenth of the run; {length:g} is longer", JUDGEMENT)


def _running(advice: Advice, images: ImageStats, machine: Machine) -> None:
    spare = machine.cores // advice.processes if machine.gpus else machine.cores // 4
    workers = max(min(spare, 8), 1)
    advice.choose(
        "DATA.WORKERS", workers, f"{machine.cores} cores; any number gives the same run", JUDGEMENT
    )
    epochs = run_steps(advice.cfg, images.number) * advice.cfg.SOLVER.BATCH_SIZE / images.number
    if epochs > CHECKPOINTS and not advice.cfg.CHECKPOINT.STEPS:
        advice.choose(
            "CHECKPOINT.PERIOD",
            float(round(epochs / CHECKPOINTS)),
            "epochs; an interrupted run repeats at most a hundredth",
            JUDGEMENT,
        )


def notes(images: ImageStats, machine: Machine, advice: Advice) -> list[str]:
    """What no option can say."""
    found = []
    if images.number < FEW_IMAGES:
        found.append(
            f"{images.number:,} images are few: start from weights that exist, BACKBONE.WEIGHTS "
            "FILE with their BACKBONE.NAME (Reed et al. 2022: pretraining that starts from such "
            "weights converges sooner and depends less on the number of images; Konstantakos et "
            "al. 2024: below 50,000 to 65,000 images the gain of pretraining from scratch "
            "shrinks), and measure both against a random start"
        )
    if images.grey > GREY:
        found.append(
            f"{images.grey:.0%} of the sampled images are grey: of the colour changes brightness "
            "and contrast are left, so that two views are told by their levels (Chen et al. 2020, "
            "SimCLR, section 3.1, on histograms as a shortcut)"
        )
    side = advice.published.VIEWS.SIZE
    if images.side > LARGE * side:
        found.append(
            f"the images are large (about {images.side:g} px): in views of {advice.cfg.VIEWS.SIZE} "
            f"px small objects vanish; read them in tiles (DATA.TILE {2 * side}; advise --tile "
            f"{2 * side} is for their number). Smaller crops (VIEWS.SCALE) will not do: two of one "
            "image would rarely show the same place (judgement)"
        )
    steps = run_steps(advice.cfg, images.number)
    if steps < FEW_STEPS:
        found.append(
            f"{steps:,} steps are so few that a gain over a random start is unlikely (judgement)"
        )
    if not machine.gpus:
        found.append(
            "no GPU: --gpus N gives the advice for a machine that has N, --time HOURS a shorter run"
        )
    return found
