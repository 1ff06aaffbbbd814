"""Choosing rate and decay on images held out of the training set; nothing else chooses."""

import itertools
import logging
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path

from fvcore.common.config import CfgNode

from densessl.core import files, form
from densessl.core.distributed import barrier, rank

from ..saved import Saved
from .data import hold_out
from .fit import Diverged, Fit
from .images import Images
from .models import Model
from .settings import Setting, configured

CHOICE = "choice.json"
TRIED: form.Form = dict.fromkeys((*(f.name for f in fields(Setting)), "top1"), form.NUMBER)

logger = logging.getLogger("densessl")


def choose(
    cfg: CfgNode, train: Images, folder: Path, build: Callable[[Setting], Model]
) -> tuple[Setting, dict[str, float]]:
    """The setting with the highest accuracy on held-out images, and what the record tells of it.

    Each of the SEARCH grid trains once, with the whole schedule, on the training images without
    SEARCH.HELD_OUT of each class; equal accuracies: the first. A search is done once in a run's
    folder, by its first trial (with that one's seed), and all trials use what it chose. Finished
    settings are not trained again, the one that was stopped resumes. ``folder`` must be another
    for another config or other weights.
    """
    settings = grid(cfg)
    if len(settings) == 1:
        return settings[0], {}
    if not (folder / CHOICE).is_file():
        part, held = hold_out(train, cfg.SEARCH.HELD_OUT, cfg.SEED)
        if rank() == 0:
            logger.info(
                "search: %d settings on %d images, chosen by %d held out",
                len(settings),
                len(part),
                len(held),
            )
        scores = [
            _score(cfg, number, setting, part, held, folder, build)
            for number, setting in enumerate(settings, 1)
        ]
        best = scores.index(max(scores))
        if rank() == 0:
            rows = [asdict(s) | {"top1": t} for s, t in zip(settings, scores, strict=True)]
            files.write_json(folder / CHOICE, {"chosen": rows[best], "tried": rows})
        barrier()
    chosen = form.read(folder / CHOICE, "the choice of a search", {"chosen": TRIED})["chosen"]
    record = {f"search/{name}": value for name, value in chosen.items()}
    setting = Setting(**{name: value for name, value in chosen.items() if name != "top1"})
    if rank() == 0:
        logger.info("search: chosen %s (%.2f %% of held out)", setting, chosen["top1"])
    return setting, record


def grid(cfg: CfgNode) -> list[Setting]:
    """Every combination of SEARCH; SOLVER's own value where a grid is empty."""
    search, own = cfg.SEARCH, configured(cfg)
    values = (
        search.BASE_LR or (own.base_lr,),
        search.WEIGHT_DECAY or (own.weight_decay,),
        search.HEAD_LR_FACTOR or (own.head_lr_factor,),
    )
    return [Setting(*map(float, row)) for row in itertools.product(*values)]


def _score(
    cfg: CfgNode,
    number: int,
    setting: Setting,
    part: Images,
    held: Images,
    folder: Path,
    build: Callable[[Setting], Model],
) -> float:
    """The accuracy of one setting on the held-out images; 0 for one that diverges."""
    own = folder / f"{number:03d}"
    result = own / "score.json"
    if result.is_file():
        return form.read(result, "the result of a search", TRIED)["top1"]
    if rank() == 0:
        own.mkdir(parents=True, exist_ok=True)
        Saved(own).clean()
    barrier()
    lines = folder / "metrics.jsonl"
    fit = Fit(cfg, build(setting), setting, part, held, own, lines, number, f"search {number}")
    try:
        top1 = fit.run().top1()
    except Diverged as error:
        top1 = 0.0
        if rank() == 0:
            logger.info("%s", error)
    if rank() == 0:
        files.write_json(result, asdict(setting) | {"top1": top1})
        Saved(own).finish()
        logger.info("search: %s: %.2f %% of held out", setting, top1)
    barrier()
    return top1
