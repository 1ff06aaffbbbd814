"""DINO: the student predicts from one view what the teacher makes of another.

s_v     student's logits of view v      q_g   softmax((t_g - c) / T_t), the target of global view g
t_g     teacher's logits of view g      p_v   softmax(s_v / T_s)          c   centre of the targets

Cross entropy is linear in the target, so all targets of one student view can be added up first:

    sum_g H(q_g, p_v) = - (sum_g q_g) . log p_v
    gradient in s_v   = (n_v p_v - sum_g q_g) / T_s

with n_v the number of targets of view v: one log-softmax a view, not one a pair. With 65536
prototypes the logits are the largest tensors of a step; so the backward pass starts from the logits
themselves again, and both passes go through them in blocks of rows.
"""

from collections.abc import Iterator, Sequence
from functools import reduce

import torch
from torch import Tensor

from densessl.core.errors import InputError

from ..precision import full_precision

BLOCK = {"cpu": 2**18, "cuda": 2**22}  # logits at once: CPU: they stay in cache; CUDA: 16 MiB

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
    where given float64); gradients are in the dtype of the logits. Nothing but the logits is kept
    for the backward pass. It cannot be differentiated twice.
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
    with torch.autocast(stacks[0].device.type, enabled=False):
        return _Distillation.apply(
            pairs, temperatures, share, shares, center, len(stacks), *stacks, *teachers
        )


class _Distillation(torch.autograd.Function):
    """sum over rows and pairs of ``share`` times the cross entropy; ``shares [B]`` weigh the rows.

    Students come as stacks ``[n, B, K]`` of views, so that views that lie in one tensor get their
    gradients in one.
    """

    @staticmethod
    def forward(ctx, pairs, temperatures, share, shares, center, n, *logits):
        ctx.save_for_backward(shares, center, *logits)
        ctx.pairs, ctx.temperatures, ctx.share, ctx.n = pairs, temperatures, share, n
        students, teachers = _views(logits[:n]), logits[n:]
        ctx.dtype = _accurate([*logits, center])
        loss = students[0].new_zeros(students[0].shape[0], dtype=ctx.dtype)  # of every row
        for rows in _blocks(students[0]):
            targets = _targets(teachers, rows, center, temperatures[1], pairs, ctx.dtype)
            for s, (count, target) in zip(students, targets, strict=True):
                if count:
                    log_p = _log_softmax(s[rows], temperatures[0], ctx.dtype)
                    loss[rows] -= log_p.mul_(target).sum(1)
        return ((loss if shares is None else loss * shares) * share).sum()

    @staticmethod
    def backward(ctx, grad):  # scalar
        if torch.is_grad_enabled():  # create_graph: the gradient would pass for a constant
            raise RuntimeError("distillation() cannot be differentiated twice")
        shares, center, *logits = ctx.saved_tensors
        stacks, teachers = logits[: ctx.n], logits[ctx.n :]
        gradients = [torch.empty_like(x) for x in stacks]
        students, into = _views(stacks), _views(gradients)
        scale = grad.to(ctx.dtype) * (ctx.share / ctx.temperatures[0])
        scales = scale.expand(len(students[0])) if shares is None else scale * shares  # [B]
        for rows in _blocks(students[0]):
            targets = _targets(teachers, rows, center, ctx.temperatures[1], ctx.pairs, ctx.dtype)
            for s, (count, target), gradient in zip(students, targets, into, strict=True):
                if count:
                    p = _softmax(s[rows], ctx.temperatures[0], ctx.dtype)
                    gradient[rows] = p.mul_(count).sub_(target).mul_(scales[rows, None])
                else:
                    gradient[rows] = 0
        return *([None] * 6), *gradients, *([None] * len(teachers))


def _targets(teachers, rows, center, temperature, pairs: Pairs, dtype):
    """For every student view, how many targets it has and their sum ``[rows, K]`` (None: none)."""
    teachers = [t[rows] if center is None else t[rows].to(dtype) - center for t in teachers]
    q = [_softmax(t, temperature, dtype) for t in teachers]
    sums = {group: reduce(torch.add, [q[g] for g in group]) for group in set(pairs) if group}
    return [(len(group), sums.get(group)) for group in pairs]


def _softmax(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    x = _scaled(logits, temperature, dtype)
    return torch.softmax(x, dim=1, out=x)


def _log_softmax(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    x = _scaled(logits, temperature, dtype)
    return torch.log_softmax(x, dim=1, out=x)


def _scaled(logits: Tensor, temperature: float, dtype: torch.dtype) -> Tensor:
    """Logits over the temperature, with each row's largest at 0: differences survive any offset."""
    x = logits.to(dtype)
    return (x - x.amax(1, keepdim=True)).mul_(1 / temperature)


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
