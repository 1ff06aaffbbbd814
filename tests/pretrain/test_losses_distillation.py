"""Distillation: the official numbers of DINO and SCFS, a plain double loop, finite differences."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from densessl.core.errors import InputError
from densessl.pretrain.losses import distillation, next_center, paired_distillation
from densessl.pretrain.methods.dino import teacher_temperature

GOLDEN = Path(__file__).parents[1] / "golden"
DTYPES = {"f64": (torch.float64, 1e-10), "f32": (torch.float32, 1e-5)}
T_S, T_T = 0.1, 0.04


class Golden:
    """The arrays of a golden file; an expected one by its name without the precision."""

    def __init__(self, file, precision):
        self.data = np.load(GOLDEN / f"{file}.npz")
        self.precision = precision
        self.dtype, self.tolerance = DTYPES[precision]

    def __getitem__(self, name):
        return torch.from_numpy(self.data[name]).to(self.dtype)

    def leaf(self, name):
        return self[name].requires_grad_()

    def number(self, name):
        return self.data[name].item()

    def check(self, found, name):
        expected = self[f"{name}_{self.precision}"]
        limit = self.tolerance * (1 + expected.abs().max().item())
        torch.testing.assert_close(found.detach(), expected, atol=limit, rtol=0)

    def temperatures(self):
        schedule = [self.number(f"{n}teacher_temp{e}") for n, e in (("warmup_", ""), ("", ""))]
        epochs, epoch = self.number("warmup_teacher_temp_epochs"), self.number("epoch")
        return self.number("student_temp"), teacher_temperature(*schedule, epochs, epoch)


def views(v=4, g=2, b=3, k=7, seed=0, dtype=torch.float64, scale=1.0):
    """Logits of v students and g teachers, and a centre; cosines, times ``scale``."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.rand(v + g, b, k, generator=generator, dtype=torch.float64) * 2 - 1
    logits = (logits * scale).to(dtype)
    center = torch.randn(1, k, generator=generator, dtype=torch.float64) * 0.1
    students = [s.clone().requires_grad_() for s in logits[:v]]
    teachers = [t.clone() for t in logits[v:]]
    return students, teachers, center.to(torch.promote_types(dtype, torch.float32))


def double_loop(students, teachers, center, student_temperature, teacher_temperature):
    """The definition, pair by pair."""
    terms = []
    for g, t in enumerate(teachers):
        q = torch.softmax((t - center) / teacher_temperature, dim=1)
        for v, s in enumerate(students):
            if v != g:
                log_p = torch.log_softmax(s / student_temperature, dim=1)
                terms.append(-(q * log_p).sum(1).mean())
    return sum(terms) / len(terms)


# ------------------------------------------------------------------------------ golden numbers


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize(("epoch", "steps"), [(0, 1), (3, 1), (9, 3)])
def test_dinos_loss_gradient_and_center_are_the_official_ones(epoch, steps, precision):
    golden = Golden(f"dino/loss_epoch{epoch}", precision)
    temperatures = golden.temperatures()
    assert temperatures[1] == pytest.approx(golden.number("teacher_temp_used"), abs=1e-12)
    center, crops = golden["center_before"], golden.number("ncrops")
    for step in range(steps):
        student, teacher = golden.leaf(f"student_{step}"), golden[f"teacher_{step}"]
        loss = distillation(student.chunk(crops), teacher.chunk(2), center, *temperatures)
        loss.backward()
        golden.check(loss, f"loss_{step}")
        golden.check(student.grad, f"grad_student_{step}")
        mean = teacher.mean(0, keepdim=True)
        center = next_center(center, mean, golden.number("center_momentum"))
        golden.check(center, f"center_after_{step}")


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("epoch", [0, 60])
def test_scfss_terms_and_total_are_the_official_ones(epoch, precision):
    golden = Golden(f"scfs/loss_epoch{epoch}", precision)
    temperatures = golden.temperatures()
    names = ("final", "l2", "l3", "l4")
    of_global = {name: golden.leaf(f"stu_g_{name}") for name in names}
    of_local = {name: golden.leaf(f"stu_l_{name}") for name in names}
    total = 0.0
    for name in names:
        center, teacher = golden[f"center_before_{name}"], golden[f"tea_g_{name}"]
        if name == "final":
            students = [*of_global[name].chunk(2), *of_local[name].chunk(3)]
            loss = distillation(students, teacher.chunk(2), center, *temperatures)
            golden.check(loss, "loss_final")
            total = total + loss
        else:
            other = teacher.roll(len(teacher) // 2, 0)  # each global view and the other
            swapped = paired_distillation(of_global[name], other, center, *temperatures)
            local = paired_distillation(
                of_local[name], golden[f"tea_l_{name}"], None, *temperatures
            )
            golden.check(swapped, f"loss_{name}_global")
            golden.check(local, f"loss_{name}_local")
            total = total + 0.5 * (swapped + local)
        golden.check(next_center(center, teacher), f"center_after_{name}")
    golden.check(total, "loss_total")
    total.backward()
    for name in names:
        golden.check(of_global[name].grad, f"grad_stu_g_{name}")
        golden.check(of_local[name].grad, f"grad_stu_l_{name}")


# -------------------------------------------------------------------------- value and gradient


@pytest.mark.parametrize(("v", "g"), [(2, 1), (2, 2), (3, 1), (6, 2), (4, 3), (3, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_it_is_the_plain_double_loop(v, g, dtype):
    students, teachers, center = views(v, g, dtype=dtype)
    plain = [s.detach().double().requires_grad_() for s in students]
    expected = double_loop(plain, [t.double() for t in teachers], center.double(), T_S, T_T)
    expected.backward()
    loss = distillation(students, teachers, center, T_S, T_T)
    loss.backward()
    accurate = torch.promote_types(dtype, torch.float32)
    assert loss.dtype == accurate  # the sums are in float32 whatever the logits are in
    tolerance = {"rtol": 1e-12, "atol": 1e-12} if dtype == torch.float64 else {}
    torch.testing.assert_close(loss, expected.to(accurate).detach(), **tolerance)
    for s, other in zip(students, plain, strict=True):
        found, wanted = s.grad, torch.zeros_like(other) if other.grad is None else other.grad
        torch.testing.assert_close(found, wanted.to(dtype), **tolerance)


def test_gradients_are_those_of_finite_differences():
    students, teachers, center = views(4, 2)
    other = students[0].detach().clone().requires_grad_()
    weights = torch.tensor([1.0, 0.0, 0.3], dtype=torch.float64)

    def both(*students):
        pairs = paired_distillation(students[-1], teachers[0], center, 0.2, 0.3, weights)
        return distillation(students[:-1], teachers, center, 0.2, 0.3) + pairs

    assert torch.autograd.gradcheck(both, (*students, other))


def test_views_may_lie_in_one_tensor():
    students, teachers, center = views(5, 2)
    expected = distillation(students, teachers, center, T_S, T_T)
    expected.backward()
    one = torch.stack(students).detach().requires_grad_()
    loss = distillation(one, torch.stack(teachers), center, T_S, T_T)
    (2 * loss).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(one.grad, torch.stack([2 * s.grad for s in students]))


def test_many_prototypes_are_taken_in_blocks_with_the_same_result():
    students, teachers, center = views(3, 2, b=5, k=2**17, dtype=torch.float32)
    loss = distillation(students, teachers, center, T_S, T_T)
    loss.backward()
    for row in range(5):
        alone = [s.detach()[row : row + 1].requires_grad_() for s in students]
        part = double_loop(alone, [t[row : row + 1] for t in teachers], center, T_S, T_T) / 5
        part.backward()
        for s, one in zip(students, alone, strict=True):
            torch.testing.assert_close(s.grad[row], one.grad[0], rtol=1e-4, atol=1e-9)
        loss = loss - part
    assert abs(loss.item()) < 1e-4


def test_only_views_that_need_a_gradient_get_one():
    students, teachers, center = views(4, 2)
    expected = torch.autograd.grad(
        distillation(students, teachers, center, T_S, T_T), students[1:3]
    )
    for index in (0, 3):
        students[index].requires_grad_(False)
    distillation(students, teachers, center, T_S, T_T).backward()
    assert students[0].grad is None and students[3].grad is None
    torch.testing.assert_close([students[1].grad, students[2].grad], list(expected))


def test_teachers_and_center_are_constants():
    students, teachers, center = views()
    teachers = [t.requires_grad_() for t in teachers]
    distillation(students, teachers, center.requires_grad_(), T_S, T_T).backward()
    assert center.grad is None and all(t.grad is None for t in teachers)


def test_it_does_not_pretend_to_a_second_derivative():
    students, teachers, center = views()
    loss = distillation(students, teachers, center, T_S, T_T)
    with pytest.raises(RuntimeError, match="twice"):
        torch.autograd.grad(loss, students, create_graph=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_changes_nothing(dtype):
    students, teachers, center = views(dtype=torch.float32)
    expected = distillation(students, teachers, center, T_S, T_T)
    with torch.autocast("cpu", dtype):
        found = distillation(students, teachers, center, T_S, T_T)
    assert torch.equal(found, expected)


def test_the_loss_scale_reaches_a_half_precision_gradient_before_it_is_rounded():
    # 1e-3 prototype shares over a large batch underflow in float16; times the scale they do not.
    students, teachers, center = views(2, 2, b=64, k=512, dtype=torch.float16)
    scale, kept = 2.0**14, 2 * 64 * T_S
    (distillation(students, teachers, center, T_S, T_T) * scale).backward()
    for s, t in zip(students, reversed(teachers), strict=True):
        p = torch.softmax(s.detach().double() / T_S, 1)
        q = torch.softmax((t.double() - center.double()) / T_T, 1)
        exact = (p - q) * scale / kept
        # Rounded once to float16: half a unit in its last place. Before that, a share in float32
        # is known to the rounding of its exponent (below 40 here, for p and for the sum of its
        # row) and little else, and where the two shares are alike that error stays.
        unit = torch.exp2(exact.abs().clamp_min(2.0**-14).log2().floor() - 10)
        float32 = 128 * torch.finfo(torch.float32).eps * (p + q) * scale / kept
        assert ((s.grad.double() - exact).abs() <= unit / 2 + float32).all()
        lost = (exact / scale).half().double() * scale  # what rounding first would have left
        assert ((lost - exact).abs() > unit / 2 + float32).any()


# ----------------------------------------------------------------------------------- invariants


def test_the_order_of_images_does_not_matter():
    students, teachers, center = views(b=6)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    loss = distillation(students, teachers, center, T_S, T_T)
    gradients = torch.autograd.grad(loss, students)
    moved = [s.detach()[order].requires_grad_() for s in students]
    permuted = distillation(moved, [t[order] for t in teachers], center, T_S, T_T)
    torch.testing.assert_close(permuted, loss)
    found = torch.autograd.grad(permuted, moved)
    torch.testing.assert_close(list(found), [g[order] for g in gradients])


def test_the_order_of_local_views_does_not_matter_and_that_of_global_views_only_together():
    students, teachers, center = views(5, 2)
    loss = distillation(students, teachers, center, T_S, T_T)
    moved = [students[i] for i in (0, 1, 4, 2, 3)]
    torch.testing.assert_close(distillation(moved, teachers, center, T_S, T_T), loss)
    swapped = [students[i] for i in (1, 0, 2, 3, 4)]
    torch.testing.assert_close(distillation(swapped, teachers[::-1], center, T_S, T_T), loss)
    assert not torch.isclose(distillation(swapped, teachers, center, T_S, T_T), loss)


@pytest.mark.parametrize("shift", [0.5, 1e3, -1e3])
def test_a_constant_added_to_all_logits_of_a_row_changes_nothing(shift):
    students, teachers, center = views(dtype=torch.float32)
    # multiples of 2^-10 so that the sum with the shift is exact
    students = [(s.detach() * 1024).round() / 1024 for s in students]
    teachers = [(t * 1024).round() / 1024 for t in teachers]
    students = [s.requires_grad_() for s in students]
    loss = distillation(students, teachers, None, T_S, T_T)
    gradients = torch.autograd.grad(loss, students)
    rows = torch.tensor([[shift], [0.0], [-shift]])
    moved = [(s + rows).detach().requires_grad_() for s in students]
    shifted = distillation(moved, [t + rows for t in teachers], None, T_S, T_T)
    torch.testing.assert_close(shifted, loss)
    found = torch.autograd.grad(shifted, moved)
    torch.testing.assert_close(list(found), list(gradients))


def test_a_student_that_is_the_teacher_has_no_gradient_and_the_teachers_entropy_as_loss():
    _, (t, _), center = views()
    student = ((t - center) / T_T * T_S).requires_grad_()
    loss = paired_distillation(student, t, center, T_S, T_T)
    loss.backward()
    q = torch.softmax((t - center) / T_T, 1)
    torch.testing.assert_close(loss, torch.special.entr(q).sum(1).mean())
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-12, rtol=0)


def test_large_logits_neither_overflow_nor_drown():
    students, teachers, center = views(dtype=torch.float32, scale=1e4)
    exact = [s.detach().double() for s in students]
    expected = double_loop(exact, [t.double() for t in teachers], center.double(), T_S, T_T)
    loss = distillation(students, teachers, center, T_S, T_T)
    torch.testing.assert_close(loss.double(), expected, rtol=1e-6, atol=0)
    loss.backward()
    assert all(s.grad.isfinite().all() for s in students)


# ------------------------------------------------------------------------------------- pairs


def test_pairs_are_rows_and_weights_choose_among_them():
    students, teachers, center = views(2, 2, b=6)
    rows = torch.stack(
        [
            paired_distillation(s[None], t[None], center, T_S, T_T)
            for s, t in zip(students[0].detach(), teachers[0], strict=True)
        ]
    )
    whole = paired_distillation(students[0], teachers[0], center, T_S, T_T)
    torch.testing.assert_close(whole, rows.mean())
    weights = torch.tensor([0.0, 2.0, 0.5, 0.0, 1.0, 1.5])
    found = paired_distillation(students[0], teachers[0], center, T_S, T_T, weights)
    torch.testing.assert_close(found, (rows * weights).sum() / weights.sum())
    chosen = paired_distillation(students[0], teachers[0], center, T_S, T_T, weights > 0)
    torch.testing.assert_close(chosen, rows[weights > 0].mean())


def test_no_row_that_counts_is_a_loss_and_gradient_of_zero():
    (student, _), (teacher, _), center = views(2, 2)
    loss = paired_distillation(student, teacher, center, T_S, T_T, torch.zeros(3, dtype=bool))
    loss.backward()
    assert loss.item() == 0 and (student.grad == 0).all()


def test_the_center_moves_towards_the_mean_of_all_rows():
    center, teachers = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.0, 4.0], [2.0, 0.0]])
    moved = next_center(center, teachers.requires_grad_(), 0.75)
    torch.testing.assert_close(moved, torch.tensor([[1.0, 2.0]]))
    assert not moved.requires_grad and moved.data_ptr() != center.data_ptr()
    mean = teachers[:1].detach().half()
    torch.testing.assert_close(next_center(center, mean), torch.tensor([[0.9, 2.2]]))


# ------------------------------------------------------------------------------------ memory


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_of_the_passes_nothing_but_the_gradient_is_kept(dtype):
    students, teachers, center = views(10, 2, b=4, k=512, dtype=dtype)
    given = {x.untyped_storage().data_ptr() for x in (*students, *teachers, center)}
    kept = {}

    def count(x):
        kept[x.untyped_storage().data_ptr()] = x.numel() * x.element_size()
        return x

    with torch.autograd.graph.saved_tensors_hooks(count, lambda x: x):
        loss = distillation(students, teachers, center, T_S, T_T)
    assert sum(size for pointer, size in kept.items() if pointer not in given) <= 4 * 4  # shares
    logits = sum(x.numel() * x.element_size() for x in (*students, *teachers)) + 4 * 4
    assert sum(kept.values()) - center.numel() * center.element_size() <= logits
    loss.backward()
    assert all(s.grad.dtype == dtype for s in students)


def test_a_graph_that_is_kept_gives_its_gradient_again_whatever_became_of_the_first():
    students, teachers, center = views()
    loss = distillation(students, teachers, center, T_S, T_T)
    first = torch.autograd.grad(3 * loss, students, retain_graph=True)
    expected = [
        3 * g
        for g in torch.autograd.grad(double_loop(students, teachers, center, T_S, T_T), students)
    ]
    torch.testing.assert_close(list(first), expected)
    for gradient in first:
        gradient.zero_()
    second = torch.autograd.grad(3 * loss, students, retain_graph=True)
    third = torch.autograd.grad(loss, students)
    torch.testing.assert_close(list(second), expected)
    torch.testing.assert_close([3 * g for g in third], expected)


def test_a_gradient_in_large_pages_is_the_same(monkeypatch):
    students, teachers, center = views()
    logits = [torch.stack(list(x)).detach() for x in (students, teachers)]
    gradients = []
    for large in (2**25, 0):
        monkeypatch.setattr(sys.modules[distillation.__module__], "LARGE", large)
        student = logits[0].clone().requires_grad_()
        distillation(student, logits[1], center, T_S, T_T).backward()
        gradients.append(student.grad)
    assert torch.equal(*gradients)
    gradients[1] += 1  # its memory is an ordinary tensor's
    torch.testing.assert_close(gradients[1], gradients[0] + 1)


def test_many_prototypes_lose_nothing_in_single_precision():
    students, teachers, center = views(3, 2, b=1, k=65536, dtype=torch.float32)
    loss = distillation(students, teachers, center, T_S, T_T)
    double = [[x.detach().double() for x in xs] for xs in (students, teachers)]
    exact = double_loop(*double, center.double(), T_S, T_T)
    assert abs(loss.item() - exact.item()) < 2e-6


# -------------------------------------------------------------------------------- wrong input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s, t, c: (s[:1], t[:1], c), "1 student views"),
        (lambda s, t, c: (s[:2], [*t, *t], c), "4 teacher views"),
        (lambda s, t, c: (s, [], c), "0 teacher views"),
        (lambda s, t, c: ([*s[:3], s[3][:2]], t, c), r"\[2, 7\], \[3, 7\]"),
        (lambda s, t, c: ([x[0] for x in s], [x[0] for x in t], c), "rows by prototypes"),
        (lambda s, t, c: (s, t, c[0]), "the centre is"),
        (lambda s, t, c: (s, t, c[:, :6]), r"must be \[1, 7\]"),
    ],
)
def test_shapes_that_disagree_are_named(change, message):
    with pytest.raises(InputError, match=message):
        distillation(*change(*views()), T_S, T_T)


def test_temperatures_must_be_positive():
    students, teachers, center = views()
    with pytest.raises(InputError, match="student temperature is 0"):
        distillation(students, teachers, center, 0, T_T)
    with pytest.raises(InputError, match="teacher temperature is -1"):
        paired_distillation(students[0], teachers[0], center, T_S, -1)


def test_weights_are_one_a_row():
    students, teachers, center = views()
    with pytest.raises(InputError, match=r"weights are \[3, 1\] for 3 rows"):
        paired_distillation(students[0], teachers[0], center, T_S, T_T, torch.ones(3, 1))
