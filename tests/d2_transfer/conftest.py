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
def scenes(tmp_path_factory):
    """A folder of small scenes in the layouts of VOC and COCO."""
    from pretrain.scenes import main as scenes_verb

    folder = tmp_path_factory.mktemp("scenes") / "data"
    options = ["--train", "12", "--val", "6", "--size", "64", "--seed", "3", "--workers", "1"]
    assert not scenes_verb.main([str(folder), *options])
    return folder
