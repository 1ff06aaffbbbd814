"""The built-in configs by name: of sweeps, too; and what they say of themselves."""

import pytest

from densessl.configs import presets
from densessl.core.errors import InputError
from densessl.pretrain import config

CROPS, SCALE = "VIEWS.LOCAL_CROPS", "VIEWS.LOCAL_SCALE"
SWEEPS = {  # the name of each config, its base, and the option in which it differs
    **{
        f"setsim_threshold0{n}_r50_in100_200ep": ("setsim", "SETSIM.THRESHOLD", n / 10)
        for n in (1, 2, 3, 4, 5, 6, 8, 9)
    },
    **{
        f"{method}_crops{n:02d}_r50_in100_200ep": (method, CROPS, n)
        for method in ("dino", "scfs")
        for n in (2, 4, 6, 10)
    },
    **{
        f"{method}_scale{name}_r50_in100_200ep": (method, SCALE, scale)
        for method in ("dino", "scfs")
        for name, scale in {"1425": (0.14, 0.25), "2540": (0.25, 0.4), "4060": (0.4, 0.6)}.items()
    },
    "scfs_levels2_r50_in100_200ep": ("scfs", "SCFS.LEVELS", ("layer2",)),
    "scfs_levels23_r50_in100_200ep": ("scfs", "SCFS.LEVELS", ("layer2", "layer3")),
}


@pytest.mark.parametrize("name", SWEEPS)
def test_a_config_of_a_sweep_is_its_base_with_one_other_value(name):
    base, key, value = SWEEPS[name]
    options = config.flat(config.load(name))
    assert options[key] == value
    other = config.flat(config.load(f"{base}_r50_in100_200ep"))
    assert {each for each in options if options[each] != other[each]} == {key}
    assert config.flat(config.load(f"{name}_scenes"))["SOLVER.MAX_STEPS"] == 30
    assert presets.find(name).gpu_hours() == presets.find(f"{base}_r50_in100_200ep").gpu_hours()


def test_the_path_that_a_config_of_a_sweep_had_still_finds_it():
    name = "setsim_threshold03_r50_in100_200ep"
    assert presets.find(presets.FOLDER / f"{name}.yaml") == presets.find(name)
    with pytest.raises(InputError, match=f"Did you mean '{name}'"):
        presets.find(f"{name}.yaml")


def test_a_sweep_may_set_more_than_its_base():
    for strategy in ("random", "sort", "hungarian", "set2set"):
        cfg = config.load(f"setsim_{strategy}_r50_in100_200ep")
        assert strategy == cfg.SETSIM.STRATEGY and not cfg.SETSIM.NEAREST
        assert cfg.MOCO.SYMMETRIC and cfg.SOLVER.EPOCHS == 200


def test_windows_are_a_sweep_on_a_preset():
    for size, stride in ((16, 16), (48, 16), (48, 32), (64, 48)):
        cfg = config.load(f"resim_c4_w{size}s{stride}_r50_in100_200ep")
        assert (size, stride) == cfg.RESIM.WINDOW
        assert (cfg.DATA.CLASSES, cfg.SOLVER.EPOCHS) == ("imagenet100", 200)


def test_the_file_of_a_sweep_is_no_config(tmp_path):
    file = presets.find("scfs_levels2_r50_in100_200ep").file
    (tmp_path / "mine.yaml").write_text(f"_BASE_: {file}\nSEED: 3\n")
    for path in (file, tmp_path / "mine.yaml"):
        with pytest.raises(InputError, match="scfs_levels2_r50_in100_200ep"):
            config.load(path)


@pytest.mark.parametrize(
    ("about", "message"),
    [("words", "ABOUT.*'words'"), ("{costs: 3}", "'costs'.*'cost'"), ("{cost: 3}", "cost.*'3'")],
)
def test_what_is_wrong_with_about_is_named(tmp_path, about, message):
    (tmp_path / "mine.yaml").write_text(f"ABOUT: {about}\nSEED: 3\n")
    with pytest.raises(InputError, match=message):
        presets.find(tmp_path / "mine.yaml").gpu_hours()


def test_a_cost_without_a_number_is_named(tmp_path):
    (tmp_path / "mine.yaml").write_text("ABOUT: {cost: {v100: 8, hours: long}}\n")
    with pytest.raises(InputError, match="'hours': 'long'"):
        presets.find(tmp_path / "mine.yaml").gpu_hours()


def test_a_file_that_is_no_text_is_one_message(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_bytes(b"ABOUT:\n  description: caf\xe9\n")
    with pytest.raises(InputError, match="mine.yaml is not YAML"):
        presets.find(file).about()
