"""Methods against the numbers of their official codes: whole steps, heads injected with weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densessl.pretrain import config
from densessl.pretrain.methods import build_method
from densessl.pretrain.methods.heads import MLP, DenseProjector, Projector, SimSiamProjector
from densessl.pretrain.views import View

GOLDEN = Path(__file__).parents[1] / "golden"
SMALL = ["BACKBONE.NAME", "resnet18", "BACKBONE.GROUP_SIZE", "2", "MOCO.SHUFFLE", "False"]


class PassThrough(nn.Module):
    """A backbone whose features are its input: a map, or a dict of them."""

    def forward(self, images):
        return images if isinstance(images, dict) else {"layer4": images}


class Maps(nn.Module):
    """A body of one layer, whose vectors become maps of one position."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, x):
        return {"layer4": self.body(x).relu()[:, :, None, None]}


def load(name):
    return {k: torch.from_numpy(np.asarray(v)) for k, v in np.load(GOLDEN / name).items()}


def assert_close(found, expected, tolerance):
    """Absolute plus relative to the largest magnitude, as the golden README asks."""
    expected = expected.double()
    limit = tolerance * (1 + float(expected.abs().max()))
    torch.testing.assert_close(found.detach().double(), expected, atol=limit, rtol=0)


def fill(module, arrays, prefix, translate=str):
    """Give ``module`` the arrays named prefix + its own (translated) names."""
    state = {n: arrays[prefix + translate(n).replace(".", "__")] for n in module.state_dict()}
    module.load_state_dict(state)


def plain_view(maps):
    box = torch.tensor([0.0, 0.0, 10.0, 10.0], dtype=torch.float64).repeat(len(maps), 1)
    return View(maps, box, torch.zeros(len(maps), dtype=torch.bool), box[:, 2:])


def pixpro_view(maps, coordinates):
    """A view in PixPro's frame: a flip is x1 > x2 (use GEOMETRY frame 'pixels' on it)."""
    x1, y1, x2, y2 = coordinates.double().unbind(1)
    box = torch.stack((torch.minimum(x1, x2), y1, torch.maximum(x1, x2), y2), 1)
    return View(maps, box, x1 > x2, torch.ones(len(maps), 2))


def test_simsiam_and_its_gradients_are_the_official_ones():
    arrays = load("simsiam/small_model.npz")
    method = build_method(
        config.load("simsiam", [*SMALL, "SIMSIAM.DIM", "10", "SIMSIAM.PREDICTOR_HIDDEN", "5"])
    )
    body = nn.Linear(6, 12)
    fill(body, arrays, "w__encoder__body__")
    method.backbone = Maps(body)
    method.projector = SimSiamProjector(12, 12, 10)
    fill(method.projector, arrays, "w__encoder__fc__")
    fill(method.predictor, arrays, "w__predictor__")
    method.double().train()
    x = [arrays[f"x{n}"].double().requires_grad_() for n in (1, 2)]
    loss = method([plain_view(each) for each in x], 0)["loss"]
    loss.backward()
    assert_close(loss, arrays["loss_f64"], 1e-10)
    for n, each in enumerate(x, 1):
        assert_close(each.grad, arrays[f"grad_x{n}_f64"], 1e-10)
    parts = {
        "encoder__body": body,
        "encoder__fc": method.projector,
        "predictor": method.predictor,
    }
    for prefix, module in parts.items():
        for name, parameter in module.named_parameters():
            theirs = arrays.get(f"grad_w__{prefix}__{name.replace('.', '__')}_f64")
            if prefix == "encoder__fc" and name == "6.bias":
                assert parameter.grad is None
            else:
                assert_close(parameter.grad, theirs, 1e-10)
        for name, value in module.state_dict().items():
            expected = arrays[f"after_fwd_f64__{prefix}__{name.replace('.', '__')}"]
            assert_close(value, expected, 1e-10)


def test_simsiams_heads_have_the_official_layers():
    layers = json.loads((GOLDEN / "simsiam" / "projector_predictor_layers.json").read_text())
    with torch.device("meta"):
        heads = {
            "projector": SimSiamProjector(2048, 2048, 2048),
            "predictor": MLP(2048, 512, 2048, bias=False),
        }
    for part, head in heads.items():
        found = [[name, list(value.shape)] for name, value in head.state_dict().items()]
        assert found == layers[part]


@pytest.mark.parametrize("name", ["step_4x5", "step_7x7"])
def test_a_whole_densecl_step_gives_the_official_numbers(name):
    arrays = load(f"densecl/{name}.npz")
    options = ["MOCO.QUEUE", "64", "MOCO.DIM", "16", "DENSE.DIM", "16"]
    for option, array in (
        ("MOCO.MOMENTUM", "momentum"),
        ("MOCO.TEMPERATURE", "temperature"),
        ("DENSE.TEMPERATURE", "temperature"),
        ("DENSE.WEIGHT", "loss_lambda"),
    ):
        options += [option, str(float(arrays[array]))]
    method = build_method(config.load("densecl", [*SMALL, *options]))
    method.backbone, method.momentum_backbone = PassThrough(), PassThrough()
    heads = {
        ("neck_q__", "mlp"): Projector(24, 20, 16),
        ("neck_q__", "mlp2"): DenseProjector(24, 20, 16),
        ("neck_k_before_ema__", "mlp"): Projector(24, 20, 16),
        ("neck_k_before_ema__", "mlp2"): DenseProjector(24, 20, 16),
    }
    for (prefix, part), head in heads.items():
        fill(head, arrays, f"{prefix}{part}__")
    (method.projector, method.dense_projector) = list(heads.values())[:2]
    (method.momentum_projector, method.momentum_dense_projector) = list(heads.values())[2:]
    for ours, theirs in ((method.queue, "queue"), (method.dense_queue, "queue2")):
        ours.keys.copy_(arrays[f"{theirs}_before"].T)
        ours.pointer.fill_(int(arrays[f"{theirs}_ptr_before"]))
    method.double()
    z_q = arrays["q_backbone"].double().requires_grad_()
    method.before_step(0)
    values = method([plain_view(z_q), plain_view(arrays["k_backbone"].double())], 0)
    values["loss"].backward()
    method.after_step(0)
    assert_close(values["loss"], arrays["loss_total_f64"], 1e-10)
    assert_close(values["loss/image"], arrays["loss_single_unweighted_f64"], 1e-10)
    assert_close(values["loss/dense"], arrays["loss_dense_unweighted_f64"], 1e-10)
    assert_close(z_q.grad, arrays["grad_q_backbone_f64"], 1e-10)
    for part, head in (("mlp", method.projector), ("mlp2", method.dense_projector)):
        for n, parameter in head.named_parameters():
            theirs = arrays[f"grad_neck_q__{part}__{n.replace('.', '__')}_f64"]
            assert_close(parameter.grad, theirs.view_as(parameter), 1e-10)
    after = {"mlp": method.momentum_projector, "mlp2": method.momentum_dense_projector}
    for part, head in after.items():
        for n, value in head.state_dict().items():
            theirs = arrays[f"neck_k_after_ema_f64__{part}__{n.replace('.', '__')}"]
            assert_close(value, theirs.view_as(value), 1e-10)
    for ours, theirs in ((method.queue, "queue"), (method.dense_queue, "queue2")):
        assert_close(ours.keys.T, arrays[f"{theirs}_after_f64"], 1e-10)
        assert ours.pointer == arrays[f"{theirs}_ptr_after"][0]


def test_the_dense_head_has_densecls_layers():
    layers = json.loads((GOLDEN / "densecl" / "neck_layers.json").read_text())
    with torch.device("meta"):
        ours = {"mlp": Projector(2048, 2048, 128), "mlp2": DenseProjector(2048, 2048, 128)}
    found = [
        [f"{part}.{name}", list(value.shape)]
        for part, head in ours.items()
        for name, value in head.state_dict().items()
    ]
    assert found == layers["state"]


@pytest.mark.parametrize("instance", [0, 1])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 5e-9), (torch.float32, 1e-5)])
def test_pixpros_whole_loss_is_the_official_one(instance, dtype, tolerance):
    arrays = load(f"pixpro/full_loss_ins{instance}.npz")
    options = {
        "PIXPRO.DIM": 16,
        "PIXPRO.HIDDEN": 8,
        "PIXPRO.EXPONENT": float(arrays["pixpro_p"]),
        "PIXPRO.THRESHOLD": float(arrays["pos_ratio"]),
        "PIXPRO.FRAME": "pixels",  # the coordinates are already in PixPro's
        "PIXPRO.INSTANCE_WEIGHT": float(arrays["ins_loss_weight"]),
    }
    overrides = [str(part) for pair in options.items() for part in pair]
    method = build_method(config.load("pixpro", [*SMALL, *overrides]))
    method.backbone, method.momentum_backbone = PassThrough(), PassThrough()
    method.projector, method.momentum_projector = nn.Identity(), nn.Identity()
    fill(method.value_transform, arrays, "value_transform__")
    if instance:
        layers = {"0": "linear1", "1": "bn1", "3": "linear2"}

        def official(name):
            number, _, rest = name.partition(".")
            return f"{layers[number]}.{rest}"

        method.instance_projector = MLP(16, 8, 16, dense=True)
        method.momentum_instance_projector = MLP(16, 8, 16, dense=True)
        fill(method.instance_projector, arrays, "projector_instance__", official)
        fill(method.momentum_instance_projector, arrays, "projector_instance__", official)
        fill(method.instance_predictor, arrays, "predictor__", official)
    method.to(dtype).train()
    features = [arrays[f"feat{n}"].to(dtype).requires_grad_() for n in (1, 2)]
    views = [pixpro_view(f, arrays[f"coord{n}"]) for n, f in enumerate(features, 1)]
    loss = method(views, 0)["loss"]
    loss.backward()
    assert_close(loss, arrays["loss_f64"], tolerance)
    for n, f in enumerate(features, 1):
        assert_close(f.grad, arrays[f"grad_feat{n}_f64"], tolerance)


def test_pixpros_projector_is_the_official_one():
    arrays = load("pixpro/proj_head.npz")
    head = MLP(12, 20, 8, dense=True)
    layers = {"0": "linear1", "1": "bn1", "3": "linear2"}
    fill(head, arrays, "w__", lambda n: f"{layers[n[0]]}{n[1:]}")
    y = head.double().train()(arrays["x"].double())
    assert_close(y, arrays["y_f64"], 1e-10)


def resim_views(arrays, rows, crops):
    """Views whose windows are those of the given rows; the common flip is left out."""
    views = []
    for letter, maps in crops.items():
        top, left, height, width = arrays[f"crops_{letter}_top_left_h_w"][rows].double().unbind(1)
        box = torch.stack((left, top, left + width, top + height), 1)
        views.append(View(maps, box, torch.zeros(len(rows), dtype=torch.bool), box[:, 2:]))
    return views


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.float32, 1e-5)])
def test_resims_three_losses_are_the_official_ones(dtype, tolerance):
    """With the maps of both levels injected: windows, pooling, negatives, losses, gradients."""
    arrays, places = load("resim/loss.npz"), load("resim/windows.npz")
    method = build_method(config.load("resim_fpn", [*SMALL, "MOCO.QUEUE", "32", "MOCO.DIM", "16"]))
    method.queue.keys.copy_(arrays["queue"].T)
    method.to(dtype)
    q_raw = arrays["q_raw"].to(dtype).requires_grad_()
    query = {level: arrays[f"fq_{name}"].to(dtype).requires_grad_() for level, name in LEVELS}
    key = {level: arrays[f"fk_{name}"].to(dtype) for level, name in LEVELS}
    image = torch.empty(2, 3, 224, 224)
    # Rows 1 and 3: the fixture of the official windows.
    views = resim_views(places, [1, 3], {"q": image, "k": image})

    class Gives(nn.Module):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def forward(self, _):
            return self.value

    method.backbone = PassThrough()
    method.projector, method.region_head = Gives(q_raw), Gives(query)
    method.encode_keys = lambda images, step, number: [
        arrays["k_raw"].to(dtype),
        *(key[level] for level in sorted(key)),
    ]
    values = method(views, 0)
    values["loss"].backward()
    assert_close(values["loss"], arrays["loss_total_f64"], tolerance)
    assert_close(values["loss/image"], arrays["loss_inst_f64"], tolerance)
    assert_close(values["loss/regions_16"], arrays["loss_c4_f64"], tolerance)
    assert_close(values["loss/regions_8"], arrays["loss_c3_f64"], tolerance)
    assert_close(q_raw.grad, arrays["grad_q_raw_f64"], tolerance)
    for level, name in LEVELS:
        assert_close(query[level].grad, arrays[f"grad_fq_{name}_f64"], tolerance)


LEVELS = (("layer3", "c4"), ("layer2", "c3"))


@pytest.mark.parametrize("name", ["grid4x5", "grid7x7_noisy", "grid7x7_shift"])
@pytest.mark.parametrize(("passes", "prefix"), [(2, "poster"), (1, "single")])
def test_houghcls_match_and_loss_are_the_posters(name, passes, prefix):
    arrays = load(f"houghcl/{name}.npz")
    options = ["HOUGH.PASSES", str(passes), "MOCO.QUEUE", "32", "DENSE.DIM", "16"]
    options += ["DENSE.TEMPERATURE", str(float(arrays["tau"]))]
    method = build_method(config.load("houghcl", [*SMALL, *options])).double()
    h_q, h_k = (nn.functional.normalize(arrays[n].double()[None], dim=1) for n in ("h_q", "h_k"))

    class Same:
        grid = tuple(h_q.shape[2:])

    match, stats = method.correspond(Same, h_q, h_k)
    assert torch.equal(match[0], arrays[f"{prefix}__match"])
    assert 0 < stats["stat/keys_matched"] <= 1
    if prefix == "poster":
        method.dense_queue.keys.copy_(arrays["queue"].T)
        q = h_q.flatten(2).requires_grad_()
        loss = method.dense_loss(q, h_k.flatten(2), match)
        loss.backward()
        assert_close(loss, arrays["dense_loss_poster"], 1e-10)
        assert_close(q.grad[0], arrays["dense_loss_grad_q_norm_poster"], 1e-10)
