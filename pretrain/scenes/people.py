"""People: a skeleton in three dimensions, posed, turned about the vertical, and dressed.

COCO's 17 keypoints are joints of that skeleton, so they are exact in every pose and view.
"""

import numpy as np

from .figure import Figure, Keypoint, Material
from .textures import color

KEYPOINTS = (  # COCO's, in its order
    "nose", "left_eye", "right_eye", "left_ear", "right_ear", "left_shoulder", "right_shoulder",
    "left_elbow", "right_elbow", "left_wrist", "right_wrist", "left_hip", "right_hip",
    "left_knee", "right_knee", "left_ankle", "right_ankle",
)  # fmt: skip
SKELETON = (  # COCO's, numbered from 1
    (16, 14), (14, 12), (17, 15), (15, 13), (12, 13), (6, 12), (7, 13), (6, 7), (6, 8), (7, 9),
    (8, 10), (9, 11), (2, 3), (1, 2), (1, 3), (2, 4), (3, 5), (4, 6), (5, 7),
)  # fmt: skip

# Lengths in body heights. Axes: x to the person's left, y down, z to the front; hips at 0.
HIP, SHOULDER, TORSO, NECK, HEAD = 0.055, 0.1, 0.3, 0.06, 0.075
UPPER_ARM, FOREARM, THIGH, SHIN = 0.16, 0.15, 0.235, 0.225
SIDES = (("left", 1.0), ("right", -1.0))


def _swing(angle: float, out: float, side: float) -> np.ndarray:
    """The direction [3] of a hanging limb swung forward by ``angle`` and outward by ``out``."""
    return np.array([side * np.sin(out), np.cos(angle) * np.cos(out), np.sin(angle) * np.cos(out)])


def _arm_angles(rng, pose: str, phase: float, side: float) -> tuple[float, float, float, float]:
    """Forward and outward angles of upper arm and forearm."""
    if pose in ("walk", "run"):
        reach = 0.6 if pose == "walk" else 0.9
        forward = -side * phase * reach
        bend = rng.uniform(0.1, 0.5) if pose == "walk" else rng.uniform(1.2, 1.7)
        return forward, 0.1, forward + bend, 0.05
    if pose == "wave" and side == 1.0:
        return rng.uniform(0, 0.4), rng.uniform(1.5, 2.3), 0.0, rng.uniform(2.6, 3.3)
    if pose == "reach":
        return rng.uniform(1.0, 2.4), 0.2, rng.uniform(1.2, 2.6), 0.1
    if pose == "star":
        return 0.0, rng.uniform(1.2, 2.2), 0.0, rng.uniform(1.4, 2.6)
    return rng.uniform(-0.2, 0.2), rng.uniform(0.1, 0.3), rng.uniform(0, 0.4), rng.uniform(0, 0.15)


def _leg_angles(rng, pose: str, phase: float, side: float) -> tuple[float, float, float, float]:
    """Forward and outward angles of thigh and shin; a knee bends backward only."""
    if pose in ("walk", "run"):
        forward = side * phase * (0.5 if pose == "walk" else 0.95)
        bend = rng.uniform(0.05, 0.3) if forward > 0 else rng.uniform(0.2, 1.3 * abs(phase))
        return forward, 0.03, forward - bend, 0.02
    if pose == "sit":
        return rng.uniform(1.3, 1.6), 0.12, rng.uniform(-0.2, 0.2), 0.05
    if pose == "star":
        spread = rng.uniform(0.25, 0.55)
        return 0.0, spread, 0.0, spread
    return rng.uniform(-0.1, 0.15), rng.uniform(0.03, 0.12), rng.uniform(-0.15, 0), 0.04


def skeleton(rng, pose: str) -> dict[str, np.ndarray]:
    """Joint name → position [3] of one person in ``pose``."""
    phase = rng.uniform(0.4, 1.0) * rng.choice([-1, 1])
    lean = rng.uniform(0.0, 0.3) if pose == "run" else rng.uniform(-0.05, 0.12)
    up = np.array([rng.uniform(-0.06, 0.06), -np.cos(lean), np.sin(lean)])
    joints = {"hips": np.zeros(3), "neck": TORSO * up}
    head = joints["neck"] + (NECK + HEAD * 0.8) * up
    joints["head"] = head
    tilt = rng.uniform(-0.3, 0.3)
    joints["nose"] = head + HEAD * np.array([0.0, 0.1 + tilt * 0.3, 0.88])
    for name, side in SIDES:
        joints[f"{name}_eye"] = head + HEAD * np.array([side * 0.38, -0.22 + tilt * 0.3, 0.78])
        joints[f"{name}_ear"] = head + HEAD * np.array([side * 0.95, 0.0, 0.0])
        joints[f"{name}_shoulder"] = joints["neck"] + np.array([side * SHOULDER, 0.025, 0.0])
        joints[f"{name}_hip"] = np.array([side * HIP, 0.0, 0.0])
        f1, o1, f2, o2 = _arm_angles(rng, pose, phase, side)
        elbow = joints[f"{name}_shoulder"] + UPPER_ARM * _swing(f1, o1, side)
        joints[f"{name}_elbow"] = elbow
        joints[f"{name}_wrist"] = elbow + FOREARM * _swing(f2, o2, side)
        f1, o1, f2, o2 = _leg_angles(rng, pose, phase, side)
        knee = joints[f"{name}_hip"] + THIGH * _swing(f1, o1, side)
        joints[f"{name}_knee"] = knee
        joints[f"{name}_ankle"] = knee + SHIN * _swing(f2, o2, side)
        joints[f"{name}_toe"] = joints[f"{name}_ankle"] + np.array([side * 0.015, 0.03, 0.075])
    return joints


def _clothes(rng) -> dict[str, Material]:
    skin = color(rng, (0.04, 0.09), (0.25, 0.65), (0.35, 0.95))
    shirt, stripe = color(rng, saturation=(0.2, 1.0)), color(rng)
    pattern = rng.choice(
        ["plain", "bands", "pales", "checks", "spots"], p=[0.5, 0.2, 0.1, 0.1, 0.1]
    )
    trousers = color(rng, (0.5, 0.75), (0.1, 0.8), (0.15, 0.7))
    hair = color(rng, (0.02, 0.14), (0.2, 0.8), (0.05, 0.75))
    return {
        "skin": Material(skin, skin * 0.85),
        "shirt": Material(shirt, stripe if pattern != "plain" else shirt * 0.8, str(pattern), 0.09),
        "trousers": Material(trousers, trousers * 0.7),
        "hair": Material(hair, hair * 0.5, "fur", 0.05),
        "shoes": Material(color(rng, value=(0.05, 0.5))),
        "eye": Material(np.array([0.05, 0.05, 0.08])),
        "nose": Material(skin * 0.9),
        "mouth": Material(np.array([0.6, 0.2, 0.2])),
    }


def person(rng) -> Figure:
    """A person of about unit height in a random pose, seen from a random side."""
    pose = str(rng.choice(["stand", "walk", "run", "wave", "reach", "star", "sit"]))
    yaw = rng.uniform(-np.pi, np.pi)
    joints = skeleton(rng, pose)
    # The viewer looks along −z; at yaw 0 the person faces the viewer, so their left is our right.
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    seen = {name: turn @ joint for name, joint in joints.items()}
    facing = np.cos(yaw)
    view = "Frontal" if facing > 0.7 else "Rear" if facing < -0.7 else ""
    figure = Figure("person", pose=view or ("Right" if np.sin(yaw) > 0 else "Left"))
    figure.materials = _clothes(rng)
    bare_arms, skirt = rng.random() < 0.5, rng.random() < 0.2
    bare_legs = skirt or rng.random() < 0.25

    pieces: list[tuple] = []  # (depth of the piece, the call that draws it)
    for name, _ in SIDES:
        pieces.append((_depth(seen, f"{name}_elbow", f"{name}_wrist"), _arm, name, bare_arms))
        pieces.append((_depth(seen, f"{name}_knee", f"{name}_ankle") - 0.02, _leg, name, bare_legs))
    pieces.append((_depth(seen, "neck"), _torso, skirt, abs(facing)))
    pieces.append((_depth(seen, "neck") + 0.03, _head, facing, rng.random() < 0.4))
    for _, draw, *options in sorted(pieces, key=lambda piece: piece[0]):
        draw(figure, seen, *options)
    figure.keypoints = _keypoints(seen)
    return figure


def _depth(seen, *names: str) -> float:
    return float(np.mean([seen[name][2] for name in names]))


def _flat(seen, *names: str) -> list[np.ndarray]:
    return [seen[name][:2] for name in names]


def _arm(figure: Figure, seen, name: str, bare: bool) -> None:
    shoulder, elbow, wrist = _flat(seen, f"{name}_shoulder", f"{name}_elbow", f"{name}_wrist")
    hand = wrist + 0.25 * (wrist - elbow)
    figure.limb("skin", wrist, hand, 0.022, 0.02, f"{name}_forearm")
    lower = "skin" if bare else "shirt"
    figure.limb(lower, elbow, wrist, 0.027, 0.02, f"{name}_forearm")
    figure.limb("shirt", shoulder, elbow, 0.037, 0.029, f"{name}_upper_arm")


def _leg(figure: Figure, seen, name: str, bare: bool) -> None:
    hip, knee, ankle, toe = _flat(seen, *(f"{name}_{j}" for j in ("hip", "knee", "ankle", "toe")))
    figure.limb("shoes", ankle + np.array([0, 0.02]), toe, 0.026, 0.018, f"{name}_foot")
    lower = "skin" if bare else "trousers"
    figure.limb(lower, knee, ankle, 0.037, 0.025, f"{name}_shin")
    figure.limb("trousers", hip, knee, 0.056, 0.04, f"{name}_thigh")


def _torso(figure: Figure, seen, skirt: bool, broad: float) -> None:
    hips, neck = _flat(seen, "hips", "neck")
    a, b, c, d = _flat(seen, "left_shoulder", "right_shoulder", "right_hip", "left_hip")
    if skirt:
        middle = (hips + (seen["left_knee"] + seen["right_knee"])[:2] / 2) / 2
        wide = np.array([0.09 + 0.03 * broad, 0.0])
        figure.polygon("trousers", [hips - wide * 0.7, hips + wide * 0.7, middle + wide * 1.3,
                                    middle - wide * 1.3], "skirt")  # fmt: skip
    figure.limb("trousers", c, d, 0.06, 0.06, "torso")
    figure.limb("skin", neck, neck + (seen["head"][:2] - neck) * 0.8, 0.032, 0.03, "neck")
    figure.limb("shirt", hips - 0.32 * (hips - neck), neck + 0.2 * (hips - neck), 0.07, 0.075,
                "torso")  # fmt: skip
    figure.polygon("shirt", [a, b, c, d], "torso")
    figure.limb("shirt", a, b, 0.04, 0.04, "torso")


def _head(figure: Figure, seen, facing: float, long_hair: bool) -> None:
    head, nose = _flat(seen, "head", "nose")
    ahead = (nose - head) * 0.07
    figure.limb("nose", head, nose, 0.012, 0.014, name="head")
    figure.oval("hair", head - ahead + np.array([0, -0.012]), HEAD * 1.02, HEAD * 1.1, name="head")
    if long_hair:
        down = head + np.array([0, HEAD * 1.6]) - ahead * 6
        figure.limb("hair", head - ahead * 3, down, HEAD * 0.85, HEAD * 0.6, "head")
    if facing > -0.55:  # the face can be seen
        center = head + (nose - head) * 0.22 + np.array([0, 0.013])
        figure.oval("skin", center, HEAD * (0.66 + 0.22 * max(facing, 0)), HEAD * 0.95, name="head")
    for name, _ in SIDES:
        ear, eye = f"{name}_ear", f"{name}_eye"
        if _faces_viewer(seen, ear):
            figure.oval("skin", seen[ear][:2], 0.015, 0.022, name="head")
        if _faces_viewer(seen, eye):
            figure.oval("eye", seen[eye][:2], 0.012, 0.013, name="head")
    if _faces_viewer(seen, "nose"):
        figure.limb("nose", head + (nose - head) * 0.8, nose, 0.012, 0.014, name="head")
        figure.oval("mouth", nose + np.array([0, 0.035]) - (nose - head) * 0.1, 0.02, 0.008,
                    name="head")  # fmt: skip


def _faces_viewer(seen, name: str) -> bool:
    """Whether a point of the head is on the side that the viewer sees; z grows towards them."""
    beyond = {"nose": -0.01, "eye": 0.012, "ear": -0.02}[name.rpartition("_")[2]]
    return bool(seen[name][2] - seen["head"][2] > beyond)


def _keypoints(seen) -> list[Keypoint]:
    """COCO's keypoints of the posed person, in COCO's order."""
    above = {  # joint: the parts that show it when they lie on top
        "shoulder": ("upper_arm", "torso"),
        "elbow": ("upper_arm", "forearm"),
        "wrist": ("forearm",),
        "hip": ("thigh", "torso", "skirt"),
        "knee": ("thigh", "shin"),
        "ankle": ("shin", "foot"),
    }
    found = []
    for name in KEYPOINTS:
        point = seen[name][:2]
        side, _, joint = name.partition("_")
        if joint in above:
            shared = ("torso", "skirt")
            own = (part if part in shared else f"{side}_{part}" for part in above[joint])
            found.append(Keypoint(point, tuple(own)))
        else:
            found.append(Keypoint(point, ("head",), _faces_viewer(seen, name)))
    return found
