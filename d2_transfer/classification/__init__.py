"""Classification: k-NN, linear classifier, fine-tuning with few labels or on small data sets."""

from densessl.core.lazy import lazily

_HOME = {
    "check_data": "data",
    "describe": "config",
    "evaluate_trained": "trial",
    "prepare": "weights",
    "read_own": "own",
    "ready": "weights",
    "resolve": ".resolve",
    "run_trial": "trial",
    "training_files": "data",
    "with_start_of": "weights",
}
__getattr__ = lazily(__name__, _HOME)
