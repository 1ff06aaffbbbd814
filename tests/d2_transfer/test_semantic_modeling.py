"""The backbone of output stride 8 and the FCN head against plain networks."""

from itertools import chain

import pytest

from densessl.configs import FOLDER
from densessl.core.errors import InputError
from densessl.d2_transfer import compat
from densessl.weight_files.keys import detectron2_names

compat.setup()
import torch  # noqa: E402
from detectron2.layers import FrozenBatchNorm2d, ShapeSpec  # noqa: E402
from detectron2.modeling import build_backbone  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402
from torchvision.models import resnet  # noqa: E402

from densessl.d2_transfer import modeling  # noqa: E402


def config(name="voc_semseg_fcn_d8", *overrides):
    cfg = compat.get_cfg()
    cfg.merge_from_file(str(FOLDER / "transfer" / f"{name}.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", "MODEL.RESNETS.NORM", "BN"])
    cfg.merge_from_list(["MODEL.SEM_SEG_HEAD.NORM", "BN", *overrides])
    return cfg


def shallow(depth):
    return ["MODEL.RESNETS.DEPTH", depth, "MODEL.RESNETS.RES2_OUT_CHANNELS", 64]


def backbone(*overrides):
    with torch.device("meta"):  # what is asked of it needs no numbers
        return build_backbone(config("voc_semseg_fcn_d8", *overrides))


def large_kernels(network):
    """Dilation, stride and padding of each convolution larger than 1x1, by its name."""
    return {
        name: (layer.dilation[0], layer.stride[0], layer.padding[0])
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Conv2d) and layer.kernel_size != (1, 1)
    }


def of_stage(found, stage, conv):
    return [value for name, value in found.items() if name.startswith(stage) and conv in name]


@pytest.mark.parametrize("depth", [50, 101])
def test_the_dilations_are_contracted_and_only_res3_has_a_stride(depth):
    found = large_kernels(backbone("MODEL.RESNETS.DEPTH", depth))
    blocks = 23 if depth == 101 else 6
    assert found["stem.conv1"] == (1, 2, 3)
    assert of_stage(found, "res2", "conv2") == [(1, 1, 1)] * 3
    assert of_stage(found, "res3", "conv2") == [(1, 2, 1)] + [(1, 1, 1)] * 3
    assert of_stage(found, "res4", "conv2") == [(1, 1, 1)] + [(2, 1, 2)] * (blocks - 1)
    assert of_stage(found, "res5", "conv2") == [(2, 1, 2), (4, 1, 4), (4, 1, 4)]
    assert len(found) == 1 + 3 + 4 + blocks + 3


@pytest.mark.parametrize("depth, blocks", [(18, (2, 2, 2, 2)), (34, (3, 4, 6, 3))])
def test_basic_blocks_dilate_their_first_convolution(depth, blocks):
    found = large_kernels(backbone(*shallow(depth)))
    assert of_stage(found, "res4", "conv1") == [(1, 1, 1)] + [(2, 1, 2)] * (blocks[2] - 1)
    assert of_stage(found, "res5", "conv1") == [(2, 1, 2)] + [(4, 1, 4)] * (blocks[3] - 1)
    second = of_stage(found, "res4", "conv2") + of_stage(found, "res5", "conv2")
    assert second == [(1, 1, 1)] * (blocks[2] + blocks[3])


def dilated_by_hand(depth):
    """torchvision's ResNet with layer3 and layer4 at layer2's resolution."""
    network = getattr(resnet, f"resnet{depth}")()
    for layer, dilation in ((network.layer3, 2), (network.layer4, 4)):
        for number, block in enumerate(layer):
            conv = block.conv2 if depth >= 50 else block.conv1
            used = dilation if number else dilation // 2
            conv.stride, conv.dilation, conv.padding = (1, 1), (used, used), (used, used)
        layer[0].downsample[0].stride = (1, 1)
    return network


@pytest.mark.parametrize("depth", [18, 50])
def test_converted_weights_compute_what_torchvision_computes(depth, random_resnet):
    state = random_resnet(depth)
    theirs = dilated_by_hand(depth)
    theirs.load_state_dict(state, strict=False)
    ours = build_backbone(config("voc_semseg_fcn_d8", *(shallow(depth) if depth < 50 else ())))
    names = detectron2_names(depth)
    ours.load_state_dict({names[name]: tensor for name, tensor in state.items()})  # all, no others
    theirs, ours = theirs.double().eval(), ours.double().eval()
    image = torch.randn(2, 3, 57, 81, generator=torch.Generator().manual_seed(0)).double()
    with torch.no_grad():
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(image))))
        res4 = theirs.layer3(theirs.layer2(theirs.layer1(x)))
        wanted = {"res4": res4, "res5": theirs.layer4(res4)}
        found = ours(image)
    assert found["res5"].shape[-2:] == (8, 11)
    for name, tensor in wanted.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-9, atol=1e-9)


def test_the_first_stages_can_be_frozen():
    network = build_backbone(
        config("voc_semseg_fcn_d8", *shallow(18), "MODEL.BACKBONE.FREEZE_AT", 2)
    )
    trained = {name.split(".")[0] for name, p in network.named_parameters() if p.requires_grad}
    assert trained == {"res3", "res4", "res5"}
    assert isinstance(network.res2[0].conv1.norm, FrozenBatchNorm2d)
    assert isinstance(network.res3[0].conv1.norm, nn.BatchNorm2d)
    assert network.output_shape() == {
        "res4": ShapeSpec(channels=256, stride=8),
        "res5": ShapeSpec(channels=512, stride=8),
    }


@pytest.mark.parametrize(
    "overrides, said",
    [
        (["MODEL.RESNETS.DEPTH", 77], "MODEL.RESNETS.DEPTH is 77"),
        (["MODEL.RESNETS.DEPTH", 18], "MODEL.RESNETS.RES2_OUT_CHANNELS is 256"),
        (["MODEL.RESNETS.RES5_DILATION", 2], "MODEL.RESNETS.RES5_DILATION is 2"),
    ],
)
def test_a_backbone_that_does_not_exist_is_refused(overrides, said):
    with pytest.raises(InputError, match=said):
        backbone(*overrides)


# The head ---------------------------------------------------------------------------------------

SHAPES = {"res4": ShapeSpec(channels=12, stride=8), "res5": ShapeSpec(channels=20, stride=8)}
SMALL = {
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 7,
    "MODEL.SEM_SEG_HEAD.AUX_CONVS_DIM": 5,
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 4,
}


def head(*overrides, name="voc_semseg_fcn_d8"):
    torch.manual_seed(0)
    cfg = config(name, *chain(*SMALL.items()), *overrides)
    return modeling.FCNHead(cfg, SHAPES).double()


def features(height=6, width=5):
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(2, shape.channels, height, width, generator=generator).double()
        for name, shape in SHAPES.items()
    }


def conv_bn_relu(x, state, name, dilation=1):
    """Convolution and batch norm of training, written out."""
    x = F.conv2d(x, state[f"{name}.weight"], padding=dilation, dilation=dilation)
    mean = x.mean((0, 2, 3), keepdim=True)
    x = (x - mean) / (x.var((0, 2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    weight, bias = state[f"{name}.norm.weight"], state[f"{name}.norm.bias"]
    return (x * weight[:, None, None] + bias[:, None, None]).clamp(min=0)


def shake(module):
    """Values for norms and biases that would show if one were left out."""
    for parameter in module.parameters():
        if parameter.ndim == 1:
            nn.init.uniform_(parameter, 0.5, 1.5)


def test_the_head_is_the_graph_of_the_paper():
    network = head("MODEL.SEM_SEG_HEAD.DROPOUT", 0.0)
    shake(network)
    state, given = network.state_dict(), features()
    x = given["res5"]
    y = conv_bn_relu(conv_bn_relu(x, state, "main.convs.0"), state, "main.convs.1")
    y = conv_bn_relu(torch.cat([x, y], 1), state, "main.conv_cat")
    wanted = F.conv2d(y, state["main.classifier.weight"], state["main.classifier.bias"])
    torch.testing.assert_close(network.main(x), wanted, rtol=1e-9, atol=1e-9)

    y = conv_bn_relu(given["res4"], state, "aux.convs.0")
    wanted = F.conv2d(y, state["aux.classifier.weight"], state["aux.classifier.bias"])
    torch.testing.assert_close(network.aux(given["res4"]), wanted, rtol=1e-9, atol=1e-9)
    shapes = {name: tuple(p.shape) for name, p in network.named_parameters() if p.ndim > 1}
    assert shapes == {
        "main.convs.0.weight": (7, 20, 3, 3),
        "main.convs.1.weight": (7, 7, 3, 3),
        "main.conv_cat.weight": (7, 27, 3, 3),
        "main.classifier.weight": (4, 7, 1, 1),
        "aux.convs.0.weight": (5, 12, 3, 3),
        "aux.classifier.weight": (4, 5, 1, 1),
    }


def test_moco_has_two_dilated_convolutions_alone():
    network = head(name="voc_semseg_moco_fcn")
    shake(network)
    state, x = network.state_dict(), features(16, 15)["res5"]
    y = conv_bn_relu(conv_bn_relu(x, state, "main.convs.0", 6), state, "main.convs.1", 6)
    wanted = F.conv2d(y, state["main.classifier.weight"], state["main.classifier.bias"])
    torch.testing.assert_close(network.main(x), wanted, rtol=1e-9, atol=1e-9)
    assert network.aux is None
    assert not [name for name in state if "conv_cat" in name]


def test_moco_has_the_dilated_conv5_of_output_stride_16():
    with torch.device("meta"):
        network = build_backbone(config("cityscapes_semseg_moco_fcn"))
    assert network.output_shape() == {"res5": ShapeSpec(channels=2048, stride=16)}
    assert of_stage(large_kernels(network), "res5", "conv2") == [(2, 1, 2)] * 3
    assert of_stage(large_kernels(network), "res4", "conv2") == [(1, 2, 1)] + [(1, 1, 1)] * 5


def test_it_starts_as_mmsegmentations_does():
    torch.manual_seed(0)
    branch = modeling.fcn_head.Branch(
        64, channels=128, num_classes=50, num_convs=2, norm="BN", dropout=0.1, concat_input=True
    )
    for layer in (*branch.convs, branch.conv_cat):
        assert layer.bias is None
        assert layer.weight.std().item() == pytest.approx((2 / (9 * 128)) ** 0.5, rel=0.01)
        assert (layer.norm.weight == 1).all()
        assert (layer.norm.bias == 0).all()
    assert branch.classifier.weight.std().item() == pytest.approx(0.01, rel=0.05)
    assert (branch.classifier.bias == 0).all()


def test_convolutions_have_a_bias_only_without_a_norm():
    network = head("MODEL.SEM_SEG_HEAD.NORM", "")
    assert network.main.convs[0].bias is not None
    assert network.main.convs[0].norm is None


def test_dropout_is_of_whole_channels():
    network = head("MODEL.SEM_SEG_HEAD.DROPOUT", 0.5)
    assert network.aux.dropout.p == 0.5
    dropped = network.main.dropout(torch.ones(3, 200, 4, 4))
    whole = dropped.flatten(2)
    assert ((whole == 0).all(2) | (whole == 2).all(2)).all()
    assert 0.35 < (whole == 0).double().mean() < 0.65


@pytest.mark.parametrize("align_corners", [False, True])
def test_the_loss_is_divided_by_all_pixels(align_corners):
    options = ["MODEL.SEM_SEG_HEAD.DROPOUT", 0.0, "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT", 0.5]
    network = head(*options, "MODEL.SEM_SEG_HEAD.ALIGN_CORNERS", align_corners)
    given = features()
    labels = torch.randint(0, 4, (2, 41, 37), generator=torch.Generator().manual_seed(2))
    labels[:, 30:] = 255
    _, losses = network(given, labels)

    def wanted(logits):
        up = F.interpolate(logits, (41, 37), mode="bilinear", align_corners=align_corners)
        chances = up.softmax(1).permute(0, 2, 3, 1)  # [2, 41, 37, 4]
        total = sum(
            -chances[b, y, x, labels[b, y, x]].log()
            for b in range(2)
            for y in range(30)
            for x in range(37)
        )
        return total / (2 * 41 * 37)

    assert set(losses) == {"loss_sem_seg", "loss_aux"}
    main, aux = network.main(given["res5"]), network.aux(given["res4"])
    torch.testing.assert_close(
        losses["loss_sem_seg"].double(), 0.5 * wanted(main), rtol=1e-5, atol=0
    )
    torch.testing.assert_close(losses["loss_aux"].double(), 0.4 * wanted(aux), rtol=1e-5, atol=0)


def test_a_picture_of_ignored_pixels_has_no_loss_and_no_gradient():
    network = head()
    _, losses = network(features(), torch.full((2, 24, 20), 255))
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0
    assert all((p.grad == 0).all() for p in network.parameters())


def test_losses_are_float32_under_autocast():
    network = head().float()
    given = {name: x.float() for name, x in features().items()}
    labels = torch.zeros(2, 24, 20, dtype=torch.long)
    with torch.autocast("cpu", torch.bfloat16):
        assert network.main(given["res5"]).dtype == torch.bfloat16
        _, losses = network(given, labels)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


@pytest.mark.parametrize(
    "key, value",
    [
        ("IN_FEATURES", ["res4", "res5"]),
        ("IN_FEATURES", []),
        ("IN_FEATURES", ["p2"]),
        ("AUX_IN_FEATURES", ["res3"]),
        ("NUM_CONVS", 0),
        ("DILATION", 0),
        ("DROPOUT", 1.0),
    ],
)
def test_a_head_that_does_not_exist_is_refused(key, value):
    with pytest.raises(InputError, match=f"MODEL.SEM_SEG_HEAD.{key} is"):
        head(f"MODEL.SEM_SEG_HEAD.{key}", value)
