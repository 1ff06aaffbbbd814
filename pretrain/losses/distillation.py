"""DINO: the student predicts from one view what the teacher makes of another.

s_v     student's logits of view v      q_g   softmax((t_g - c) / T_t), the target of global view g
t_g     teacher's logits of view g      p_v   softmax(s_v / T_s)          c   centre of the targets

Cross entropy is linear in the target, so all targets of one student view can be added up first:

    sum_g H(q_g, p_v) = - (sum_g q_g) . log p_v
    gradient in s_v   = (n_v p_v - sum_g q_g) / T_s

with n_v the number of targets of view v: one exponential a view, not one a pair. It serves value
and gradient alike, so the forward pass makes both, in blocks of rows that stay in cache: every
logit is read once. Half precision is the exception: its gradient is made in the backward pass,
where the scale of the loss is known, since without it a share of 65536 prototypes would underflow.
"""

import mmap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import reduce

import torch
from torch import Tensor

from densessl.core.errors import InputError

from ..precision import full_precision, without_autocast

BLOCK = {"cpu": 2**17, "cuda": 2**22}  # logits at once: CPU: they stay in cache; CUDA: 16 MiB
HUGE_PAGES = hasattr(mmap, "MADV_HUGEPAGE")  # Linux
LARGE = 2**25  # bytes: what is larger, glibc takes from the kernel anew each time

Pairs = tuple[tuple[int, ...], ...]  # for every student view, the teacher's views it is to predict


def distillation(
    students: Sequence[Tensor] | Tensor,
    teachers: Sequence[Tensor] | Tensor,
    center: Tensor | None,
    student_temperature: float,
    teacher_temperature: float,
) -> Tensor:
    """Mean over pairs (g, v != g) and the batch of H(softmax((t_g - c)/T_t), softmax(s_v/T_s)).

    ``students``: ``[B, K]`` logits of every view, the global ones first; ``teachers``: ``[B, K]``
    logits of the global views in the same order, constants; ``center``: ``[1, K]`` or None. Either
    may be one tensor ``[V, B, K]``, which spares its gradient a copy. Computed in float32 (float64
    where given float64); gradients are in the dtype of the logits. Beside the logits, their
    gradient alone is kept for the backward pass. It cannot be differentiated twice.
    Raises InputError for shapes that disagree, fewer than two views and temperatures that are not
    positive. Source: DINO eq. 1-4, main_dino.py (DINOLoss).

        >>> s, t = [torch.randn(2, 8) for _ in range(4)], [torch.randn(2, 8) for _ in range(2)]
        >>> loss = distillation(s, t, torch.zeros(1, 8), 0.1, 0.04)
    """
    where = "distillation()"
    if len(students) < 2 or not 1 <= len(teachers) <= len(students):
        raise InputError(
            f"{where}: {len(students)} student views and {len(teachers)} teacher views; at least "
            "two views, and the teacher's of one to all of them, are needed"
        )
    _check(where, [*students, *teachers], center, student_temperature, teacher_temperature)
    views, targets = range(len(students)), range(len(teachers))
    pairs = tuple(tuple(g for g in targets if g != v) for v in views)
    share = 1 / (sum(map(len, pairs)) * max(len(students[0]), 1))
    stacks = [students] if isinstance(students, Tensor) else [s[None] for s in students]
    temperatures = (float(student_temperature), float(teacher_temperature))
    return _run(stacks, teachers, center, temperatures, pairs, share, None)


def paired_distillation(
    students: Tensor,
    teachers: Tensor,
    center: Tensor | None,
    student_temperature: float,
    teacher_temperature: float,
    weights: Tensor | None = None,
) -> Tensor:
    """Mean over rows r of H(softmax((t_r - c)/T_t), softmax(s_r/T_s)): scalar.

    ``students`` and ``teachers`` are ``[M, K]`` logits, row by row of views that belong together;
    ``teachers`` are constants. ``weights [M]`` (bool or non-negative, constants) make it a weighted
    mean, 0 where all are 0. The rest as in :func:`distillation`.
    Source: SCFS eq. 9, with the reductions of its released code (a mean over crops).
    """
    where = "paired_distillation()"
    _check(where, [students, teachers], center, student_temperature, teacher_temperature)
    share, shares = 1 / max(len(students), 1), None
    if weights is not None:
        if weights.shape != students.shape[:1]:
            raise InputError(
                f"{where}: weights are {list(weights.shape)} for {len(students)} rows; "
                "there must be one a row"
            )
        share, shares = 1.0, _shares(weights, students)
    temperatures = (float(student_temperature), float(teacher_temperature))
    return _run([students[None]], [teachers], center, temperatures, ((0,),), share, shares)


@torch.no_grad()
@full_precision
def next_center(center: Tensor, teachers: Tensor, momentum: float = 0.9) -> Tensor:
    """The centre after a step: m c + (1 - m) mean of the teacher's logits, ``[1, K]``.

    ``center`` is ``[1, K]``; ``teachers`` ``[M, K]`` are the logits of all global views of all
    processes, or their mean ``[1, K]``. Source: DINO eq. 4.
    """
    return torch.lerp(center, teachers.mean(0, keepdim=True), 1 - momentum)


def _check(
    where: str,
    logits: list[Tensor],
    center: Tensor | None,
    student_temperature: float,
    teacher_temperature: float,
) -> None:
    shapes = {tuple(x.shape) for x in logits}
    if len(shapes) > 1 or logits[0].ndim != 2:
        raise InputError(
            f"{where}: logits of students and teachers are {sorted(map(list, shapes))}; "
            "all must be equal, rows by prototypes"
        )
    if center is not None and center.shape != (1, logits[0].shape[1]):
        raise InputError(
            f"{where}: the centre is {list(center.shape)}; it must be [1, {logits[0].shape[1]}]"
        )
    for name, value in (("student", student_temperature), ("teacher", teacher_temperature)):
        if not value > 0:
            raise InputError(f"{where}: the {name} temperature is {value}; it must be positive")


def _shares(weights: Tensor, students: Tensor) -> Tensor:
    """What every row contributes to the weighted mean: ``[M]``."""
    weights = weights.detach().to(torch.promote_types(students.dtype, torch.float32))
    total = weights.sum()
    return weights / total.where(total > 0, 1)


def _run(stacks, teachers, center, temperatures, pairs, share, shares) -> Tensor:
    center = None if center is None else center.detach()
    teachers = [t.detach() for t in teachers]
    of_rows = stacks[0].new_full((stacks[0].shape[1],), share, dtype=_accurate([*stacks, center]))
    if shares is not None:
        of_rows *= shares
    with without_autocast(stacks[0].device):
        return _Distillation.apply(
            pairs,
            temperatures,
            of_rows,
            center,
            torch.is_grad_enabled(),
            len(stacks),
            *stacks,
            *teachers,
        )


class _Distillation(torch.autograd.Function):
    """sum over rows and pairs of ``shares [B]`` times the cross entropy.

    Students come as stacks ``[n, B, K]`` of views, so that views that lie in one tensor get their
    gradients in one.
    """

    @staticmethod
    def forward(ctx, pairs, temperatures, shares, center, grad_enabled, n, *logits):
        ctx.save_for_backward(shares, center, *logits)
        ctx.pairs, ctx.temperatures, ctx.n, ctx.gradients = pairs, temperatures, n, None
        stacks, teachers = logits[:n], logits[n:]
        at_once = all(x.dtype == shares.dtype for x in stacks)
        if at_once and grad_enabled and any(ctx.needs_input_grad[6:]):
            ctx.gradients = [_empty_like(x) for x in stacks]
        return _losses(stacks, teachers, center, temperatures, pairs, shares, ctx.gradients).sum()

    @staticmethod
    def backward(ctx, grad):  # scalar
        if torch.is_grad_enabled():  # create_graph: the gradient would pass for a constant
            raise RuntimeError("distillation() cannot be differentiated twice")
        shares, center, *logits = ctx.saved_tensors
        stacks, teachers = logits[: ctx.n], logits[ctx.n :]
        gradients, ctx.gradients = ctx.gradients, None  # they are the caller's from now on
        if gradients is None:  # half precision, or the second time through a graph that was kept
            gradients = [_empty_like(x) for x in stacks]
            shares = shares * grad
            _losses(stacks, teachers, center, ctx.temperatures, ctx.pairs, shares, gradients)
        elif grad.device.type != "cpu" or grad != 1:
            for gradient in gradients:
                gradient *= grad
        return *([None] * 6), *gradients, *([None] * len(teachers))


def _losses(stacks, teachers, center, temperatures, pairs: Pairs, shares, gradients) -> Tensor:
    """The loss of every row, times its share ``[B]``; its gradient is written to ``gradients``."""
    loss = torch.zeros_like(shares)
    students = _views(stacks)
    into = [None] * len(students) if gradients is None else _views(gradients)
    t_s, t_t = temperatures
    for rows in _blocks(students[0]):
        share = shares[rows, None]
        targets = _targets(teachers, rows, center, t_t, pairs, share / -t_s)
        for s, group, gradient in zip(students, pairs, into, strict=True):
            if group:
                x, target = _scaled(s[rows], t_s, share.dtype), targets[group]
                product = (x * target).sum(1)
                total = x.exp_().sum(1, keepdim=True)  # of the numerators of p
                count = share * len(group)
                loss[rows] += (count * total.log())[:, 0] + t_s * product
                if gradient is not None:
                    torch.addcmul(target, x, count / (t_s * total), out=gradient[rows])
            elif gradient is not None:
                gradient[rows] = 0
    return loss


def _targets(teachers, rows, center, temperature, pairs: Pairs, factor) -> dict:
    """The sum of the targets of every group of the teacher's views, times ``factor [rows, 1]``."""
    q = []
    for t in teachers:
        t = t[rows] if center is None else t[rows].to(factor.dtype) - center
        x = _scaled(t, temperature, factor.dtype).exp_()
        q.append(x.mul_(factor / x.sum(1, keepdim=True)))
    return {group: reduce(torch.add, [q[g] for g in group]) for group in set(pairs) if group}


def _scaled(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Logits over the temperature, with each row's largest at 0: differences survive any offset."""
    x = logits.to(dtype)
    return (x - x.amax(1, keepdim=True)).mul_(1 / temperature)


def _empty_like(x: Tensor) -> Tensor:
    """Memory for a gradient; on Linux, where it is large, in pages of 2 MiB.

    To fill 42 MiB of new pages of 4 KiB takes as long as the loss.
    """
    size = x.numel() * x.element_size()
    if x.device.type != "cpu" or size <= LARGE or type(x) is not Tensor or not HUGE_PAGES:
        return torch.empty_like(x, memory_format=torch.contiguous_format)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    with suppress(OSError):  # a kernel without them
        pages.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(pages, dtype=x.dtype).view(x.shape)


def _views(stacks: Sequence[Tensor]) -> list[Tensor]:
    return [view for stack in stacks for view in stack.unbind()]


def _blocks(logits: Tensor) -> Iterator[slice]:
    """Rows to take at once of ``[B, K]``."""
    rows, columns = logits.shape
    step = max(BLOCK.get(logits.device.type, BLOCK["cuda"]) // max(columns, 1), 1)
    return (slice(start, start + step) for start in range(0, rows, step))


def _accurate(tensors: list[Tensor | None]) -> torch.dtype:
    double = any(x is not None and x.dtype == torch.float64 for x in tensors)
    return torch.float64 if double else torch.float32
