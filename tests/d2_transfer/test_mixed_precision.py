"""AMP (SOLVER.AMP) on a CPU: what a step is, what a checkpoint holds, and which configs have it."""

import copy
from types import SimpleNamespace

import pytest
import torch
import yaml
from torch import nn

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import classification, compat, results
from densessl.d2_transfer.mixed_precision import MixedTrainer, stands_for
from densessl.d2_transfer.resolve import describe, resolve

compat.setup()
AMP = ["SOLVER.AMP.ENABLED", "True"]
BF16 = [*AMP, "SOLVER.AMP.DTYPE", "bfloat16"]
OVERFLOWS = 1e30  # of which float16 has none


class Model(nn.Module):
    """One layer; its loss is a batch's factor times the mean of its square."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.layer, self.seen = nn.Linear(3, 2), []

    def forward(self, batch):
        x, factor = batch
        found = self.layer(x)
        self.seen.append(found.dtype)
        return {"loss": factor * found.float().square().mean()}


def trainer_of(dtype, batches):
    model = Model()
    made = MixedTrainer(model, batches, torch.optim.SGD(model.parameters(), lr=0.1))
    amp = SimpleNamespace(ENABLED=True, DTYPE=dtype)
    made.configure(SimpleNamespace(SOLVER=SimpleNamespace(AMP=amp)))
    return made


def steps(trainer, count):
    from detectron2.utils.events import EventStorage

    with EventStorage(0):
        for _ in range(count):
            trainer.run_step()


def batches(*factors):
    generator = torch.Generator().manual_seed(1)
    return [(torch.randn(4, 3, generator=generator), factor) for factor in factors]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_a_step_is_that_of_pytorchs_recipe(dtype):
    given = batches(0.01, 0.02, 0.005)
    trainer = trainer_of(dtype, given)
    steps(trainer, 3)

    model, half = Model(), getattr(torch, dtype)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for batch in given:
        with torch.autocast("cpu", half):
            loss = model(batch)["loss"]
        optimizer.zero_grad()
        (loss * 65536 if dtype == "float16" else loss).backward()
        for p in model.parameters():
            p.grad /= 65536 if dtype == "float16" else 1
        optimizer.step()
    assert trainer.model.seen == [half] * 3
    assert torch.equal(trainer.model.layer.weight, model.layer.weight)


def test_a_step_that_overflows_is_left_out_and_the_lower_scale_is_kept_in_checkpoints():
    given = batches(OVERFLOWS, 0.01, 0.01)
    whole = trainer_of("float16", given)
    before = whole.model.layer.weight.clone()
    steps(whole, 1)
    assert torch.equal(whole.model.layer.weight, before)
    state = copy.deepcopy(whole.state_dict())
    assert state["grad_scaler"]["scale"] == 32768
    steps(whole, 2)

    resumed = trainer_of("float16", given[1:])
    resumed.load_state_dict(state)
    steps(resumed, 2)
    assert torch.equal(resumed.model.layer.weight, whole.model.layer.weight)
    assert resumed.state_dict()["grad_scaler"] == whole.state_dict()["grad_scaler"]


def test_bfloat16_has_no_loss_scale():
    trainer = trainer_of("bfloat16", batches(OVERFLOWS))
    before = trainer.model.layer.weight.clone()
    steps(trainer, 1)
    assert trainer.state_dict()["grad_scaler"] == {}
    assert not torch.equal(trainer.model.layer.weight, before)


@pytest.mark.parametrize("protocol", ["coco_mask_fpn_1x", "linear"])
def test_a_config_without_amp_is_the_one_that_it_was(protocol):
    cfg = resolve(protocol, cuda=False)
    config = results.as_dict(cfg)
    before = copy.deepcopy(config)
    del before["SOLVER"]["AMP"]["DTYPE"]
    assert results.config_fingerprint(before) == results.config_fingerprint(config)
    assert results.config_fingerprint(
        results.as_dict(resolve(protocol, cuda=False, overrides=BF16))
    ) != results.config_fingerprint(config)


@pytest.mark.parametrize("protocol", ["coco_mask_fpn_1x", "linear"])
def test_an_unknown_precision_is_refused_with_those_that_there_are(protocol):
    with pytest.raises(InputError, match=r"bfloat17.*SOLVER.AMP.DTYPE.*mean 'bfloat16'"):
        resolve(protocol, cuda=False, overrides=[*AMP, "SOLVER.AMP.DTYPE", "bfloat17"])


@pytest.mark.parametrize("dtype, says", [("float16", "AMP off"), ("bfloat16", "AMP bfloat16")])
def test_of_a_files_amp_a_cpu_leaves_out_float16(dtype, says, tmp_path):
    """On the command line it is taken as it is, and slow."""
    file = tmp_path / "own.yaml"
    solver = {"AMP": {"ENABLED": True, "DTYPE": dtype}}
    file.write_text(
        yaml.safe_dump(
            {"_BASE_": str(FOLDER / "transfer" / "coco_retinanet_1x.yaml"), "SOLVER": solver}
        )
    )
    assert describe(resolve(str(file), cuda=False), 1).endswith(says)
    named = resolve(str(file), cuda=False, overrides=[*AMP, "SOLVER.AMP.DTYPE", dtype])
    assert describe(named, 1).endswith(f"AMP {dtype}")
    assert describe(resolve(str(file)), 8).endswith(f"AMP {dtype}")


def test_features_of_each_precision_are_kept_apart():
    kinds = [[], AMP, BF16]
    found = [stands_for(classification.resolve("knn", overrides=each)) for each in kinds]
    assert found == [False, True, "bfloat16"]
