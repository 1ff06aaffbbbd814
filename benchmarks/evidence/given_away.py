"""What a data set gives away without any network (:mod:`.shortcuts`), in sentences."""

import statistics
from collections.abc import Mapping

from densessl.d2_transfer.compare.words import points

from .measured import CONTROLS, METHODS, Measured
from .shortcuts import OBJECT, RING


def sentences(measured: Measured) -> str:
    """What is known of a data set without a network, in sentences with their intervals."""
    told = measured.shortcuts or {}
    lines = []
    if objects := told.get("objects"):
        lines.append(
            f"- Several objects: {objects['an_image']:.1f} an image in the mean, and in "
            f"{objects['share_of_images_with_several']:.0f} % of the images more than one."
        )
        lines += [_class_from(region, objects) for region in (RING, OBJECT)]
    same = told["duplicates"]
    nearer = same["share_above_99_per_cent_of_training"]
    lines.append(
        f"- Test images and training images: {nearer:.1f} % of "
        f"the {told['test']} test images are nearer to a training image than 99 % of the training "
        "images are to another one; by chance it would be 1 % (correlation of grey thumbnails of "
        f"16 px; to the nearest {same['median']:.2f} in the median and {same['most']:.2f} at most, "
        f"among training images {same['median_in_training']:.2f} and "
        f"{same['most_in_training']:.2f})."
    )
    floor = told["cells"]["mIoU"]
    lines.append(
        "- What colour and texture of a position's cell alone give a linear layer: mIoU "
        f"{points(floor['value'])} ({points(floor['low'])} to {points(floor['high'])}; with the "
        f"labels in another order {points(told['cells']['shuffled']['value'])}). "
        + _above_floor(measured, floor)
    )
    return "\n".join([*lines, "", "Intervals of 95 % by blocks of ten test images."])


def _class_from(region: str, objects: Mapping) -> str:
    told = objects[region]
    chance = max(told["shuffled"], told["most_frequent"])
    beyond = told["low"] > chance
    verdict = "can" if beyond else "cannot"
    return (
        f"- The class of an object {verdict} be told from colour and texture of {region}: "
        f"{told['value']:.1f} % right ({told['low']:.1f} to {told['high']:.1f}) of "
        f"{objects['test_objects']} objects of {objects['classes']} classes; the most frequent "
        f"class is {told['most_frequent']:.1f} %, shuffled labels give {told['shuffled']:.1f} %."
    )


def _above_floor(measured: Measured, floor: Mapping) -> str:
    values = measured.of("linear", (*CONTROLS, *METHODS))
    above = [name for name, each in values.items() if statistics.fmean(each) > floor["high"]]
    if not above:
        return "No network's linear probe has a mean above that interval."
    return f"Means of the linear probe above that interval: {', '.join(above)}."
