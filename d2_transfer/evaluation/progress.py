"""An evaluation as it is seen: a bar, an answer to Ctrl-C, and nothing printed."""

import contextlib
import io

from densessl.core import waiting
from densessl.core.errors import StoppedEarly
from densessl.core.progress import Bar

from .. import compat

compat.setup()
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators  # noqa: E402
from detectron2.utils import comm  # noqa: E402


class Progress(DatasetEvaluator):
    """Counts images on a bar, and looks for stop requests; measures nothing."""

    def __init__(self, description: str, images: int):
        self.description, self.images = description, images
        self.bar: Bar | None = None

    def reset(self):
        if comm.is_main_process():
            self.bar = Bar(self.description, self.images).__enter__()

    def process(self, inputs, outputs):
        if self.bar:
            self.bar.advance(len(inputs))
        if waiting.asked() and comm.get_world_size() == 1:  # others would wait for this one
            self.close()
            raise StoppedEarly("stopped in the evaluation; the same command evaluates again")

    def evaluate(self):
        self.close()

    def close(self):
        if self.bar:
            self.bar.__exit__(None, None, None)
            self.bar = None


class Quiet(DatasetEvaluators):
    """Several evaluators as one, without what pycocotools prints."""

    def evaluate(self):
        with contextlib.redirect_stdout(io.StringIO()):
            return super().evaluate()
