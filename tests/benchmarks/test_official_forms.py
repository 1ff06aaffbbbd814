"""The formulas that ours is measured against are the official ones: the golden numbers."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from benchmarks import official_forms as official
from densessl.pretrain.methods.dino import teacher_temperature

GOLDEN = Path(__file__).parents[1] / "golden"


def golden(name):
    with np.load(GOLDEN / name) as file:
        return {
            key: torch.from_numpy(file[key]) for key in file.files if file[key].dtype.kind in "fiub"
        }


def close(found, expected, atol=1e-9):
    torch.testing.assert_close(found.detach().double(), expected.double(), atol=atol, rtol=1e-9)


def test_contrast_is_mocos():
    arrays = golden("moco/infonce_T0p2.npz")
    raw = arrays["q_raw"].double().requires_grad_()
    key, queue = F.normalize(arrays["k_raw"].double()), arrays["queue_before"].double()
    loss = official.contrast(F.normalize(raw), key, queue, arrays["temperature"].item())
    loss.backward()
    close(loss, arrays["loss_f64"])
    close(raw.grad, arrays["grad_q_raw_f64"])


def test_match_and_contrast_are_densecls():
    arrays = golden("densecl/step_7x7.npz")
    match = official.best(arrays["q_backbone"].double(), arrays["k_backbone"].double())
    assert torch.equal(match, arrays["match_index_f64"])
    query, key = arrays["q_grid_f64"], arrays["k_grid_f64"]
    positive = key.gather(2, match[:, None].expand_as(key))
    rows = [x.transpose(1, 2).flatten(0, 1) for x in (query, positive)]
    queue, temperature = arrays["queue2_before"].double(), arrays["temperature"].item()
    close(official.contrast(*rows, queue, temperature), arrays["loss_dense_unweighted_f64"])


def test_sets_are_setsims():
    given = golden("setsim/g7x7_inputs.npz")
    expected = golden("setsim/g7x7_official_attgeo_nn.npz")
    raw = given["p_q_raw"].double().requires_grad_()
    query = F.normalize(raw, dim=1).flatten(2)
    key = F.normalize(given["p_k_raw"].double(), dim=1).flatten(2)
    mask, queue = expected["mask_final"].bool(), given["queue2"].double()
    loss = official.sets(query, key, mask, queue, given["T"].item())
    loss.backward()
    torch.testing.assert_close(loss.detach(), expected["loss_f64"].double(), atol=1e-7, rtol=1e-6)
    torch.testing.assert_close(raw.grad, expected["grad_q_raw_f64"].double(), atol=1e-7, rtol=1e-6)


def test_cosine_is_simsiams():
    arrays = golden("simsiam/loss.npz")
    p = [arrays[name].double().requires_grad_() for name in ("p1", "p2")]
    loss = (official.cosine(p[0], arrays["z2"]) + official.cosine(p[1], arrays["z1"])) / 2
    loss.backward()
    close(loss, arrays["loss_f64"], 1e-8)  # its inputs are stored in float32
    close(p[0].grad, arrays["grad_p1_f64"], 1e-7)


@pytest.mark.parametrize("epoch", [0, 3])
def test_distillation_and_centre_are_dinos(epoch):
    arrays = golden(f"dino/loss_epoch{epoch}.npz")
    student = arrays["student_0"].double().requires_grad_()
    temperatures = arrays["student_temp"].item(), arrays["teacher_temp_used"].item()
    teacher, center = arrays["teacher_0"].double(), arrays["center_before"].double()
    crops = int(arrays["ncrops"])
    loss, moved = official.dino(student, teacher, center, crops, *temperatures)
    loss.backward()
    close(loss, arrays["loss_0_f64"])
    close(student.grad, arrays["grad_student_0_f64"])
    close(moved, arrays["center_after_0_f64"])


def test_the_paired_term_is_scfss():
    arrays = golden("scfs/loss_epoch0.npz")
    names = ("warmup_teacher_temp", "teacher_temp", "warmup_teacher_temp_epochs", "epoch")
    temperatures = (
        arrays["student_temp"].item(),
        teacher_temperature(*(arrays[name].item() for name in names)),
    )
    student = arrays["stu_g_l2"].double().requires_grad_()
    teacher = arrays["tea_g_l2"].double()
    other, center = teacher.roll(len(teacher) // 2, 0), arrays["center_before_l2"].double()
    close(official.paired(student, other, center, *temperatures), arrays["loss_l2_global_f64"])
