"""The packages beside densessl/ are installed below it: densessl.pretrain is pretrain/."""

from setuptools import find_packages, setup

BESIDE = ("configs", "pretrain", "d2_transfer", "slurm")
packages = find_packages(include=["densessl", "densessl.*"])
for room in BESIDE:
    packages += [f"densessl.{name}" for name in find_packages(include=[room, f"{room}.*"])]

setup(
    packages=packages,
    package_dir={f"densessl.{room}": room for room in BESIDE},
    package_data={
        "densessl": ["py.typed"],
        "densessl.configs": ["**/*.yaml", "**/*.txt"],
        "densessl.d2_transfer": ["**/*.csv", "**/*.yaml", "**/*.j2", "**/*.json"],
    },
)
