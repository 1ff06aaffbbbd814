import numpy as np
import pytest

from densessl.pretrain.scenes.generate import BUILDERS, MAX_SCALE, MIN_SCALE, MIN_VISIBLE, generate
from densessl.pretrain.scenes.labels import CLASSES, LABELS
from densessl.pretrain.scenes.people import KEYPOINTS
from densessl.pretrain.scenes.render import render

SIZE = 96


@pytest.fixture(scope="module")
def scenes():
    return [generate(3, index, SIZE) for index in range(64)]


@pytest.fixture(scope="module")
def instances(scenes):
    return [instance for scene in scenes for instance in scene.instances]


def test_a_scene_is_a_function_of_seed_index_and_split(scenes):
    again = generate(3, 5, SIZE)
    assert np.array_equal(again.image, scenes[5].image)
    assert np.array_equal(again.order, scenes[5].order)
    for other in (generate(4, 5, SIZE), generate(3, 5, SIZE, "val"), scenes[6]):
        assert not np.array_equal(other.image, again.image)


def test_every_class_occurs_and_each_is_the_largest_object_of_some_scenes(scenes, instances):
    assert len(CLASSES) >= 7 and CLASSES[0] == "person"
    assert {instance.category for instance in instances} == set(CLASSES)
    largest = [scene.main.category for scene in scenes]
    assert all(largest.count(name) >= 4 for name in CLASSES)  # 64 scenes, 8 classes


def test_images_have_texture_and_full_range(scenes):
    assert all(scene.image.shape == (SIZE, SIZE, 3) for scene in scenes)
    assert np.mean([scene.image.std() for scene in scenes]) > 25
    assert len({tuple(scene.image.mean((0, 1)).round()) for scene in scenes}) > 60  # unlike


def test_boxes_are_tight_around_masks(instances):
    for instance in instances:
        rows, columns = np.nonzero(instance.mask)
        assert instance.box == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)
        assert instance.area == len(rows) > 0


def test_masks_of_a_scene_do_not_overlap_and_some_are_covered(scenes, instances):
    for scene in scenes:
        assert np.sum([instance.mask for instance in scene.instances], 0).max() == 1
        assert scene.main.area == max(instance.area for instance in scene.instances)
    shares = np.array([instance.visible for instance in instances])
    assert shares.min() >= MIN_VISIBLE and shares.max() == 1
    assert 0.1 < (shares < 0.95).mean() < 0.6
    assert any(instance.truncated for instance in instances)
    assert 0 < np.mean([instance.difficult for instance in instances]) < 0.4


def test_scales_span_a_sixteenth_to_half_of_the_image(instances):
    whole = [i for i in instances if i.visible == 1 and not i.truncated]
    longer = np.array([max(i.box[2] - i.box[0], i.box[3] - i.box[1]) for i in whole])
    assert longer.min() >= MIN_SCALE * SIZE - 2 and longer.max() <= MAX_SCALE * SIZE + 2
    assert longer.min() < 0.1 * SIZE and longer.max() > 0.4 * SIZE


def test_objects_look_unlike_what_surrounds_them(scenes):
    """The masks lie where the picture changes: their edges carry more contrast than the rest."""
    on_edge, elsewhere = [], []
    for scene in scenes:
        gray = scene.image.astype(float).mean(2)
        step = np.abs(np.diff(gray, axis=1))
        labels = np.zeros((SIZE, SIZE), int)
        for place, instance in enumerate(scene.instances, start=1):
            labels[instance.mask] = place
        border = np.diff(labels, axis=1) != 0
        on_edge.append(step[border].mean())
        elsewhere.append(step[~border].mean())
    assert np.mean(on_edge) > 2 * np.mean(elsewhere)


def test_semantic_maps_agree_with_the_instances(scenes):
    names = list(LABELS)
    for scene in scenes[:16]:
        labels = scene.semantic(names.index)
        things = np.isin(labels, [names.index(name) for name in CLASSES])
        assert np.array_equal(things, np.any([i.mask for i in scene.instances], 0))
        for instance in scene.instances:
            assert (labels[instance.mask] == names.index(instance.category)).all()
        assert (scene.order > 0).all()  # no pixel is without a label


def test_keypoints_of_people_lie_on_them(instances):
    flags = []
    for instance in instances:
        assert (instance.keypoints is not None) == (instance.category == "person")
        if instance.keypoints is None:
            continue
        assert instance.keypoints.shape == (len(KEYPOINTS), 3)
        for x, y, flag in instance.keypoints:
            flags.append(flag)
            if flag == 2:
                assert instance.mask[y, x]
            elif flag == 1:
                assert 0 <= x < SIZE and 0 <= y < SIZE
            else:
                assert x == y == 0
    counts = np.bincount(flags, minlength=3) / len(flags)
    assert counts[2] > 0.5 and counts[1] > 0.1 and counts[0] > 0


@pytest.mark.parametrize("seed", range(12))
def test_left_and_right_follow_the_side_that_is_seen(seed):
    """Facing us, a person's left is on our right; with their back to us, on our left."""
    rng = np.random.default_rng(seed)
    person = BUILDERS["person"](rng)
    left, right = (
        person.keypoints[KEYPOINTS.index(f"{side}_shoulder")].point[0] for side in ("left", "right")
    )
    nose = person.keypoints[KEYPOINTS.index("nose")]
    if person.pose == "Frontal":
        assert left > right and nose.faces_viewer
    elif person.pose == "Rear":
        assert left < right and not nose.faces_viewer
    else:
        head = np.mean([person.keypoints[3].point, person.keypoints[4].point], 0)  # the ears
        assert (nose.point[0] > head[0]) == (person.pose == "Right")


def test_all_keypoints_of_a_drawn_person_are_inside_the_outline():
    rng = np.random.default_rng(0)
    for _ in range(60):
        person = BUILDERS["person"](rng)
        patch = render(person, rng, (64.0, 64.0), 100.0, np.array([0.0, -1.0]), 128)
        points = np.floor(patch.keypoints).astype(int)
        assert patch.full_mask(128)[points[:, 1], points[:, 0]].all()
        low, high = person.bounds()
        assert (high - low)[1] > 0.6  # of a body height, sitting included


def test_a_hand_behind_the_body_counts_as_hidden():
    """Over many people seen from the side, the far wrist is hidden more often than the near one."""
    rng = np.random.default_rng(1)
    seen = {"near": [], "far": []}
    for _ in range(150):
        person = BUILDERS["person"](rng)
        if person.pose not in ("Left", "Right"):
            continue
        patch = render(person, rng, (64.0, 64.0), 100.0, np.array([0.0, -1.0]), 128)
        near = "left" if person.pose == "Left" else "right"
        for side in ("left", "right"):
            shown = patch.shows(KEYPOINTS.index(f"{side}_elbow"))
            seen["near" if side == near else "far"].append(shown)
    assert np.mean(seen["near"]) > np.mean(seen["far"]) + 0.2
    assert np.mean(seen["near"]) > 0.95
