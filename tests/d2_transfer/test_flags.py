"""A flag of ``transfer``, and a protocol, are declared once; what reads them agrees."""

import re
from pathlib import Path

import pytest

import densessl
from densessl.core.errors import InputError
from densessl.d2_transfer import flags, main
from densessl.d2_transfer.protocols import DENSE, DETECTION, PROTOCOLS

ROOT = Path(densessl.__file__).parents[1]


def parsed(*words: str):
    return main.parser().parse_intermixed_args(list(words))


def test_the_words_of_a_job_give_back_its_values():
    values = {"protocol": "custom_semseg", "variant": "knn", "gpus": 2, "mini": True}
    values |= {"keep_batch": False, "data": "there", "train_images": "im", "ignore": 0}
    values |= {"seed": 3, "trials": 5, "output_dir": "out"}
    words = flags.given_words(values)
    assert "--keep-batch" not in words and "--trials" not in words  # the defaults
    args = parsed("random", *words, "SEED", "1")
    assert {name: getattr(args, name) for name in values} == values


def test_every_flag_has_its_default_and_its_help():
    args = parsed()
    for flag in flags.ALL:
        assert getattr(args, flag.name) == (flag.default if flag.metavar else False)
        assert flag.words[0] in main.parser().format_help()


@pytest.mark.parametrize("name, value", [("trials", 0), ("seed", -1), ("num_machines", 0)])
def test_a_number_below_its_least_names_flag_and_value(name, value):
    with pytest.raises(InputError, match=f"{flags.shown(name)}.*: .* {value}; .* at least"):
        parsed("--" + name.replace("_", "-"), str(value))


def test_the_users_own_data_are_named_by_flags():
    for protocol in PROTOCOLS.values():
        assert {*protocol.needs, *protocol.takes} <= {*flags.OWN}


def test_the_documents_table_has_every_protocol_of_dense_tasks_with_its_variants():
    text = (ROOT / "docs" / "protocols.md").read_text()
    found = {}
    for line in re.findall(r"^\| `.*\|$", text.partition("## ")[0], re.MULTILINE):
        names, *_, variants = line.strip("| ").split(" | ")
        for name in (names := re.findall(r"`(\w+)`", names)):
            full = name if not name.startswith("_") else names[0][:-3] + name
            found[full] = re.findall(r"`(\w+)`", variants)
            if variants == "the same":
                found[full] = found["linear_semseg"]
    known = {
        name: [each for each in protocol.variants if each]
        for name, protocol in PROTOCOLS.items()
        if protocol.family in (DETECTION, DENSE)
    }
    assert found == known
