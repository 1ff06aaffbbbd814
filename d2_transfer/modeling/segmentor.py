"""Semantic segmentation as the papers evaluate it: of whole images or by sliding windows."""

from collections.abc import Callable

from densessl.core.watchdog import beat

from .. import compat, windows

compat.setup()
import torch  # noqa: E402
from detectron2.config import configurable  # noqa: E402
from detectron2.modeling import META_ARCH_REGISTRY, SemanticSegmentor  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional as F  # noqa: E402

from .fcn_head import upsample  # noqa: E402


@META_ARCH_REGISTRY.register()
class FCNSegmentor(SemanticSegmentor):
    """Detectron2's SemanticSegmentor with mmsegmentation's way from logits to the image's size.

    Logits are upsampled to the size of the network's input first, averaged there when windows
    overlap, and then resized to the original image; both times bilinearly and with the head's
    align_corners (EncoderDecoder's whole and slide modes). Each image is evaluated by itself, so
    that a result does not depend on its batch.
    """

    @configurable
    def __init__(self, *, window: tuple[int, int] | None, **kwargs):
        """``window``: side and stride of a sliding window, in pixels; None for whole images."""
        super().__init__(**kwargs)
        self.window = window

    @classmethod
    def from_config(cls, cfg) -> dict:
        return super().from_config(cfg) | {"window": windows.of(cfg)}

    @property
    def align_corners(self) -> bool:
        """Of every resizing of logits."""
        return self.sem_seg_head.align_corners

    def forward(self, batched_inputs: list[dict]):
        """Losses in training, else a dict with ``sem_seg`` for each image.

        Each input has ``image [3, h, w]``, in training ``sem_seg`` (long ``[h, w]``), otherwise
        ``height`` and ``width`` of the original image (the input's own when they are missing).
        ``sem_seg`` of the output: float32 logits ``[C, height, width]``.
        """
        if self.training:
            return super().forward(batched_inputs)
        return [{"sem_seg": self._segment(each)} for each in batched_inputs]

    def _segment(self, each: dict) -> torch.Tensor:
        image = each["image"].to(self.device)
        image = ((image - self.pixel_mean) / self.pixel_std)[None]  # [1, 3, h, w]
        window = self.window
        logits = self._whole(image) if window is None else averaged(image, window, self._whole)
        size = (each.get("height", image.shape[-2]), each.get("width", image.shape[-1]))
        if size != tuple(logits.shape[-2:]):
            logits = upsample(logits, size, self.align_corners)
        return logits[0]

    def _whole(self, image: torch.Tensor) -> torch.Tensor:
        """``[1, 3, h, w]`` → logits ``[1, C, h, w]``."""
        logits, _ = self.sem_seg_head(self.backbone(image))
        return upsample(logits, image.shape[-2:], self.align_corners)


@META_ARCH_REGISTRY.register()
class DeepLabSegmentor(FCNSegmentor):
    """Detectron2's DeepLab heads with images of any size, and with sliding windows.

    These heads pool over as many pixels as the training crop has, and take nothing but multiples of
    it. So an image (or a window) is filled up to one with the mean colour, at its right and below,
    and its own part of the logits is kept, as in DeepLab's own code (input_preprocess.py). An image
    that is a multiple has the logits of Detectron2's SemanticSegmentor.
    """

    align_corners = False  # as these heads resize

    @configurable
    def __init__(self, *, multiple: tuple[int, int], **kwargs):
        """``multiple``: height and width of the crop, in pixels; without one, the head's stride."""
        super().__init__(**kwargs)
        self.multiple = multiple

    @classmethod
    def from_config(cls, cfg) -> dict:
        crop, stride = cfg.INPUT.CROP, cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE
        height, width = crop.SIZE if crop.ENABLED else (stride, stride)
        return super().from_config(cfg) | {"multiple": (int(height), int(width))}

    def _whole(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        right, below = -width % self.multiple[1], -height % self.multiple[0]
        filled = F.pad(image, (0, right, 0, below))  # 0 is the mean colour: it is normalised
        return super()._whole(filled)[..., :height, :width]


class SlidingWindowSegmentor(nn.Module):
    """A segmentor of Detectron2's (Semantic FPN) that looks at an image through windows.

    What a window shows is cut out of the network's input and looked at by itself. Logits are
    averaged at the input's size and then resized to the original image bilinearly, as Detectron2
    resizes them. An image that fits into one window has the segmentor's own output.
    """

    def __init__(self, cfg, model: nn.Module):
        super().__init__()
        self.model, self.window = model, windows.of(cfg)
        self.train(model.training)

    def forward(self, batched_inputs: list[dict]) -> list[dict]:
        """A dict with ``sem_seg``, float32 logits ``[C, height, width]``, for each input, which has
        an ``image [C', h, w]`` and the original's ``height`` and ``width``."""
        return [{"sem_seg": self._segment(each)} for each in batched_inputs]

    def _segment(self, each: dict) -> torch.Tensor:
        size, window = each["image"].shape[-2:], self.window
        assert window  # by_windows
        if all(len(windows.spans(edge, *window)) == 1 for edge in size):
            return self._look(each)
        logits = averaged(each["image"], window, self._look_at)
        return upsample(logits[None], (each["height"], each["width"]), align_corners=False)[0]

    def _look_at(self, image: torch.Tensor) -> torch.Tensor:
        height, width = image.shape[-2:]
        return self._look({"image": image, "height": height, "width": width})

    def _look(self, each: dict) -> torch.Tensor:
        (output,) = self.model([each])
        return output["sem_seg"]


def averaged(
    image: torch.Tensor,
    window: tuple[int, int],
    look: Callable[[torch.Tensor], torch.Tensor],
) -> torch.Tensor:
    """The mean, at each pixel of an image, of the logits of the windows it lies in.

    ``image [..., h, w]``; ``window``: side and stride in pixels; ``look``: what gives the logits
    ``[..., C, height, width]`` of a window's pixels. The mean is ``[..., C, h, w]``.
    """
    height, width = image.shape[-2:]
    total = count = None
    for top, bottom in windows.spans(height, *window):
        for left, right in windows.spans(width, *window):
            part = look(image[..., top:bottom, left:right])
            if total is None or count is None:
                total = part.new_zeros(*part.shape[:-2], height, width)
                count = part.new_zeros(height, width)
            total[..., top:bottom, left:right] += part
            count[top:bottom, left:right] += 1
            beat()
    assert total is not None and count is not None  # every image has a window
    return total.div_(count)
