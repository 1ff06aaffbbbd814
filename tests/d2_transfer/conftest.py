import os
import signal
from contextlib import contextmanager

import pytest


@pytest.fixture(scope="session")
def random_resnet():
    """``random_resnet(depth, seed)``: a state dict without fc, batch-norm statistics random too."""
    import torch
    from torchvision.models import resnet

    def make(depth: int = 18, seed: int = 0) -> dict:
        generator = torch.Generator().manual_seed(seed)
        with torch.device("meta"):
            shapes = getattr(resnet, f"resnet{depth}")().state_dict()
        state = {}
        for name, tensor in shapes.items():
            if name.startswith("fc."):
                continue
            values = torch.empty(tensor.shape)
            if name.endswith("num_batches_tracked"):
                values = torch.randint(1, 1000, (), generator=generator)
            elif name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                values.uniform_(0.5, 1.5, generator=generator)
            elif tensor.ndim == 1:
                values.normal_(generator=generator)
            else:
                deviation = (2 / tensor[0].numel()) ** 0.5
                values.normal_(std=deviation, generator=generator)
            state[name] = values
        return state

    return make


@pytest.fixture(scope="session")
def our_checkpoint(random_resnet):
    """``our_checkpoint(path, depth, **other)``: a file as ``densessl pretrain`` writes it."""
    import torch

    def write(path, depth: int = 18, **other):
        checkpoint = {
            "model": {"queue": torch.zeros(4, 2)},
            "backbone": random_resnet(depth),
            "iteration": 12,
            "config": "METHOD:\n  NAME: setsim\n",
            "method": "setsim",
            "normalization": {
                "mean": [0.485, 0.456, 0.406],
                "std": [0.229, 0.224, 0.225],
                "channel_order": "RGB",
            },
            "pretrain": {"dataset": "imagenet100", "images": 126689, "epochs": 200},
        }
        torch.save(checkpoint | other, path)
        return path

    return write


@pytest.fixture(scope="session")
def scenes(draw_scenes):
    """A folder of small scenes in the layouts of VOC and COCO."""
    return draw_scenes("--train", "12", "--val", "6")


@pytest.fixture(scope="session")
def few_scenes(draw_scenes):
    """Eight scenes to train on, of which half are VOC2007's."""
    return draw_scenes("--train", "8", "--val", "2", "--size", "128", "--seed", "1")


@pytest.fixture(scope="session")
def four_scenes(draw_scenes):
    """As many as a step takes: a model sees all of them in each, and learns them in half the
    steps."""
    return draw_scenes("--train", "4", "--val", "2", "--size", "128", "--seed", "1")


@pytest.fixture(scope="session")
def pretrained(few_scenes, tmp_path_factory):
    """``pretrained(depth)``: what ``densessl pretrain`` leaves after a few steps on the scenes."""
    from densessl.pretrain.main import main as pretrain_verb

    made = {}

    def checkpoint(depth: int):
        if depth not in made:
            out = tmp_path_factory.mktemp(f"resnet{depth}")
            options = {
                "DATA.PATH": few_scenes / "imagenet" / "train",
                "OUTPUT_DIR": out,
                "BACKBONE.NAME": f"resnet{depth}",
                "SOLVER.MAX_STEPS": 4,
                "SOLVER.BATCH_SIZE": 8,
                "DATA.WORKERS": 0,
            }
            words = [str(part) for pair in options.items() for part in pair]
            assert not pretrain_verb(["--config", "moco_v2_scenes", *words])
            made[depth] = out / "backbone_final.pth"
        return made[depth]

    return checkpoint


def untrained(protocol, variant, weights, folder, data, overrides, own=None) -> dict[str, float]:
    """The metrics of the model that training begins with."""
    from densessl.d2_transfer import datasets
    from densessl.d2_transfer import weights as start
    from densessl.d2_transfer.backbone_choice import follow
    from densessl.d2_transfer.checkpoints import AtomicCheckpointer
    from densessl.d2_transfer.datasets import custom
    from densessl.d2_transfer.evaluation import flat_metrics
    from densessl.d2_transfer.resolve import resolve
    from densessl.d2_transfer.trainer import Trainer

    cfg = resolve(protocol, variant, gpus=1, mini=True, cuda=False, overrides=overrides, custom=own)
    custom.register(own) if own else datasets.register(data)
    cfg.defrost()
    cfg.OUTPUT_DIR = str(folder)
    prepared = start.prepare(str(weights), folder, cfg)
    cfg = follow(cfg, prepared.network)
    model = Trainer.build_model(cfg)
    AtomicCheckpointer(model).load(prepared.file)
    return flat_metrics(Trainer.test(cfg, model))


@pytest.fixture(scope="session")
def learns():
    """``learns(protocol, variant, weights, data, out, overrides, metric, gain)``: train through the
    verb, look at the record, and compare its metric with the untrained model's."""
    return _learns


def _learns(protocol, variant, weights, data, out, overrides, metric, gain, flags=(), own=None):
    import json

    import yaml

    from densessl.d2_transfer import main, protocols, results

    before = untrained(protocol, variant, weights, out / "before", data, overrides, own)
    words = [
        str(weights),
        "--protocol",
        protocol,
        "--mini",
        "--trials",
        "1",
        "-o",
        str(out / "run"),
    ]
    words += ["--variant", variant] if variant else []
    words += list(flags) or ["--data", str(data)]
    assert main.main([*words, *overrides]) == 0
    record = results.load(out / "run" / "trial_1")
    assert (record.protocol, record.variant, record.mini) == (protocol, variant, True)
    assert record.method == "moco" and record.weights["path"] == str(weights)
    wanted = protocols.PROTOCOLS[protocol].metrics
    assert set(wanted) <= set(record.metrics)
    written = yaml.safe_load((record.folder / "config.yaml").read_text())
    assert results.config_fingerprint(written) == record.config_sha256
    summary = json.loads((out / "run" / "summary.json").read_text())
    assert summary["metrics"][metric]["values"] == [record.metrics[metric]]
    print(f"{protocol} {variant}: {metric} {before[metric]:.2f} -> {record.metrics[metric]:.2f}")
    assert record.metrics[metric] > before[metric] + gain


@pytest.fixture
def stops_at(monkeypatch):
    """``with stops_at(iteration):`` a SIGTERM reaches detectors that are trained after it."""
    from densessl.d2_transfer import trainer

    @contextmanager
    def stopping(iteration: int):
        class Stopping(trainer.StopWhenAsked):
            def after_step(self):
                if self.trainer.iter == iteration:
                    os.kill(os.getpid(), signal.SIGTERM)
                super().after_step()

        with monkeypatch.context() as patched:
            patched.setattr(trainer, "StopWhenAsked", Stopping)
            yield

    return stopping
