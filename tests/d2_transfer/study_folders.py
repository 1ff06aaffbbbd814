"""A study's folder as ``densessl study`` leaves it, with values of the test's own."""

import hashlib
import json

import yaml

from densessl.d2_transfer import results

SHARES = ((1, 4), (10, 40), (100, 400))
ARMS = (
    {"name": "random", "kind": "random"},
    {"name": "random_bn", "kind": "random"},
    {"name": "simclr", "kind": "pretrained", "pretrainings": 3, "steps": 300, "seconds": 540},
)


def study(folder, values, arms=ARMS, shares=SHARES, config=None, first=1, **facts):
    """Write it. ``values``: by arm and percent, of random arms a value (a number, or all metrics) a
    trial, of others by pretraining a list of them; the first seed is ``first``.

    Where labels are drawn by trial, a pretraining's trials have the seeds from its own number on,
    as the n-th random network has.
    """
    told = {
        "task": "semseg",
        "images": "photographs",
        "n_images": 1000,
        "protocols": [{"name": "linear_semseg", "variant": "camvid", "metric": "sem_seg/mIoU"}],
        "arms": list(arms),
        "labels": [{"percent": percent, "images": images} for percent, images in shares],
        "command": "densessl study --images photographs -o study",
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.json").write_text(json.dumps(told | facts))
    kinds = {arm["name"]: arm["kind"] for arm in arms}
    for arm, by_percent in values.items():
        for percent, units in by_percent.items():
            place = folder / "results" / "linear_semseg" / str(percent) / arm
            if kinds[arm] == "random":
                _trials(place, arm, None, units, config, first)
            for nth, trials in enumerate(units if kinds[arm] != "random" else ()):
                own = first + nth * (facts.get("label_draw") == "by_trial")
                _trials(place / str(nth), arm, nth, trials, config, own)
    return folder


def _trials(place, arm, pretraining, values, config, first):
    start = pretraining is None
    sha256 = hashlib.sha256(f"{arm} {pretraining}".encode()).hexdigest()
    for seed, value in enumerate(values, start=first):
        own = {"SEED": seed, "INPUT": {"SIZE": [96, 96]}} | (config or {})
        folder = place / f"trial_{seed}"
        results.save(
            folder,
            results.Record(
                method=arm,
                weights={"path": arm, "sha256": ""}
                if start
                else {"path": f"pretrain/{arm}/{pretraining}.pth", "sha256": sha256},
                pretrain={} if start else {"recipe": f"of {arm}", "seed": pretraining},
                protocol="linear_semseg",
                variant="camvid",
                seed=seed,
                metrics=value if isinstance(value, dict) else {"sem_seg/mIoU": value},
                config_sha256=results.config_fingerprint(own),
                versions={"torch": "2.11.0"},
                started=results.now(),
                finished=results.now(),
            ),
        )
        (folder / "config.yaml").write_text(yaml.safe_dump(own))
