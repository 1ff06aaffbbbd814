"""How what is missing is installed: by the Makefile of a checkout, or with pip beside a wheel."""

from pathlib import Path

from .errors import EnvironmentLacks

# A commit of the official main; the Makefile has the same.
OFFICIAL = (
    "git+https://github.com/facebookresearch/detectron2@fd27788985af0f4ca800bca563acdb700bb890e2"
)
CHECKOUT = (Path(__file__).parents[2] / "Makefile").is_file()
# What is imported: the extra of pyproject.toml that installs it.
EXTRAS = {
    "av": "video",
    "cityscapesscripts": "transfer",
    "cloudpickle": "transfer",
    "faster_coco_eval": "transfer",
    "hydra": "transfer",
    "jinja2": "transfer",
    "matplotlib": "transfer",
    "omegaconf": "transfer",
    "pandas": "pandas",
    "pycocotools": "transfer",
    "pydicom": "dicom",
    "rasterio": "geotiff",
    "shapely": "transfer",
    "submitit": "cluster",
    "timm": "vit",
}


def command(extra: str = "") -> str:
    """What installs DenseSSL with all that an extra of pyproject.toml (``transfer``, …) needs."""
    if CHECKOUT:
        return "make setup"
    return f"pip install 'densessl[{extra}]'" if extra else "pip install densessl"


def lacking(error: ModuleNotFoundError) -> EnvironmentLacks | None:
    """What to tell a person of a failed import; None for what we never said was optional."""
    name = (error.name or "").partition(".")[0]
    if name == "detectron2":
        fix = detectron2()
    elif name in EXTRAS:
        fix = command(EXTRAS[name])
    else:
        return None
    return EnvironmentLacks(f"{name} is not installed; fix it with: {fix}")


def detectron2() -> str:
    """What installs Detectron2, which no extra names: PyPI's release wants options of its own."""
    if CHECKOUT:
        release, official = "make setup", "make detectron2-main"
    else:
        pip = "pip install --no-build-isolation --no-deps"
        build = "--config-settings=--global-option=build_py"
        build += " --config-settings=--build-option=--skip-build"
        release = f"{command('transfer')} && {pip} {build} detectron2-cdo==0.5"
        official = f"{pip} '{OFFICIAL}' && pip install 'iopath<0.1.10' black"
    return f"{release}  (the release on PyPI), or {official}  (the official main, compiled)"
