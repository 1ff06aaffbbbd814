from setuptools import find_packages, setup

TRANSFER = [  # Detectron2 itself: see the Makefile (`setup`, `detectron2-main`)
    "cloudpickle",
    "hydra-core>=1.1",
    "omegaconf>=2.1",
    "pycocotools>=2.0.6",
    "faster-coco-eval>=1.6",
    "cityscapesscripts>=2.2",
    "shapely>=2",
    "jinja2>=3.1",
    "matplotlib>=3.7",
    "tabulate",
    "termcolor>=1.1",
    "tqdm",
    "yacs>=0.1.8",
]
CLUSTER = ["submitit>=1.5"]
VIT = ["timm>=1.0"]  # imported only where a vision transformer is built
EVIDENCE = ["lightly==1.5.22"]  # the outside check of `make evidence`: pinned, as its numbers are
DEVELOPMENT = ["pytest>=8", "pytest-xdist>=3.5", "ruff>=0.15"]
ROOMS = ("configs", "console", "decoding", "knn", "probes", "weight_files")
ROOMS += ("pretrain", "d2_transfer", "slurm")

setup(
    name="densessl",
    version="0.1.0",
    description="Self-supervised pretraining for dense tasks, from images to the paper's table",
    license="Apache-2.0",
    python_requires=">=3.10",
    py_modules=["densessl"],
    packages=find_packages(include=[f"{room}{below}" for room in ROOMS for below in ("", ".*")]),
    package_data={
        "configs": ["**/*.yaml", "**/*.txt"],
        "d2_transfer": ["**/*.csv", "**/*.yaml", "**/*.j2", "**/*.json"],
    },
    install_requires=[
        "torch>=2.4",
        "torchvision>=0.19",
        "numpy>=1.26",
        "pillow>=10",
        "fvcore>=0.1.5",
        "iopath>=0.1.9",
        "pyyaml>=6",
        "rich>=13",
        "scipy>=1.11",
        "tensorboard>=2.14",
    ],
    extras_require={
        "transfer": TRANSFER,
        "cluster": CLUSTER,
        "vit": VIT,
        "evidence": EVIDENCE,
        "dev": DEVELOPMENT,
        "all": TRANSFER + CLUSTER + VIT,
    },
    entry_points={"console_scripts": ["densessl=densessl:main"]},
)
