"""Schedules as pure functions of the step: resuming needs the step number and nothing else."""

from fvcore.common.config import CfgNode

from densessl.core.schedules import cosine, linear, stepped


def total_steps(solver: CfgNode, steps_per_epoch: int) -> int:
    """Steps of the whole run: ``MAX_STEPS`` when it is set, else ``EPOCHS`` full epochs."""
    return solver.MAX_STEPS or solver.EPOCHS * steps_per_epoch


def scaled_lr(solver: CfgNode) -> float:
    """The peak learning rate after linear scaling: BASE_LR · BATCH_SIZE / REFERENCE_BATCH."""
    return solver.BASE_LR * solver.BATCH_SIZE / solver.REFERENCE_BATCH


def learning_rate(solver: CfgNode, step: int, steps_per_epoch: int) -> float:
    """The learning rate in effect at ``step`` (from 0) of a run with ``cfg.SOLVER`` options.

    A linear warm-up (always per step) ends at the peak, which is the rate of the first step after
    it (PixPro) and with WARMUP_INCLUSIVE also that of its last step (DINO). Then the schedule moves
    per step, or per epoch as in MoCo (main_moco.py, adjust_learning_rate): the first epoch runs at
    the peak and the last one above END_LR. The cosine is over the steps after the warm-up (PixPro,
    lr_scheduler.py; DINO, utils.py); milestones of ``step`` are epochs of the whole run.
    """
    total = total_steps(solver, steps_per_epoch)
    warmup = min(round(solver.WARMUP_EPOCHS * steps_per_epoch), total)
    peak = scaled_lr(solver)
    if step < warmup:
        last = max(warmup - 1, 1) if solver.WARMUP_INCLUSIVE else warmup
        return linear(peak * solver.WARMUP_FACTOR, peak, step / last)
    moved = step - step % steps_per_epoch if solver.PER == "epoch" else step
    if solver.SCHEDULE == "cosine":
        return cosine(peak, solver.END_LR, max(moved - warmup, 0) / max(total - warmup, 1))
    if solver.SCHEDULE == "step":
        marks = [round(epoch * steps_per_epoch) for epoch in solver.STEPS]
        return stepped(peak, solver.GAMMA, [mark for mark in marks if mark > 0], moved)
    return peak


def weight_decay(solver: CfgNode, step: int, steps_per_epoch: int) -> float:
    """The weight decay in effect at ``step`` (from 0) of a run with ``cfg.SOLVER`` options.

    From WEIGHT_DECAY along a cosine, per step of the whole run and without a warm-up, towards
    END_WEIGHT_DECAY, which no step reaches; constant where that is negative.
    Source: DINO, main_dino.py (wd_schedule).
    """
    if solver.END_WEIGHT_DECAY < 0:
        return solver.WEIGHT_DECAY
    share = step / max(total_steps(solver, steps_per_epoch), 1)
    return cosine(solver.WEIGHT_DECAY, solver.END_WEIGHT_DECAY, share)
