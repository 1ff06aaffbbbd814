"""Checkpoints and pictures as users have them."""

import pytest


@pytest.fixture(scope="session")
def resnet():
    """torchvision's ResNet-18 with random statistics of its batch norms, in evaluation mode."""
    import torch
    from torchvision.models import resnet18

    torch.manual_seed(0)
    network = resnet18().eval()
    for name, buffer in network.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5)
    return network


@pytest.fixture(scope="session")
def moco(resnet, tmp_path_factory):
    """A file as MoCo-v1's own code writes it."""
    import torch

    state = {f"module.encoder_q.{name}": tensor for name, tensor in resnet.state_dict().items()}
    path = tmp_path_factory.mktemp("moco") / "checkpoint_0199.pth.tar"
    torch.save({"epoch": 200, "arch": "resnet18", "state_dict": state}, path)
    return path


@pytest.fixture(scope="session")
def run_folder(resnet, tmp_path_factory):
    """What ``densessl pretrain`` leaves behind, as far as its weights are concerned."""
    import torch

    state = {name: t for name, t in resnet.state_dict().items() if not name.startswith("fc.")}
    folder = tmp_path_factory.mktemp("run") / "output"
    folder.mkdir()
    normalization = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "channel_order": "RGB"}
    held = {
        "model": {},
        "backbone": state,
        "iteration": 12,
        "config": "METHOD:\n  NAME: setsim\n",
        "method": "setsim",
        "normalization": normalization,
        "pretrain": {"dataset": "coco", "images": 118287, "epochs": 200},
    }
    torch.save(held, folder / "backbone_final.pth")
    return folder
