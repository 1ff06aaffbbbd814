"""Dense probes: frozen features of positions → a linear layer, neighbours or clusters → mIoU."""

from densessl.core.lazy import lazily

_HOME = {
    "check_data": "data",
    "describe": "config",
    "prepare": "trial",
    "read_any_form": "any_form",
    "read_own": "own",
    "ready": "trial",
    "resolve": ".resolve",
    "run_trial": "trial",
    "training_files": "data",
}
__getattr__ = lazily(__name__, _HOME)
