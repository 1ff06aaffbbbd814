"""Feature search: the official numbers of SCFS, and what it must not depend on."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.pretrain.correspondence import feature_search, soft_attention

GOLDEN = Path(__file__).parents[1] / "golden" / "scfs" / "feature_search.npz"


def some(queries=3, images=2, channels=8, grid=(4, 5), seed=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    query = torch.randn(queries, images, channels, generator=generator, dtype=torch.float64)
    key = torch.randn(images, channels, *grid, generator=generator, dtype=torch.float64)
    return query.to(dtype), key.to(dtype)


@pytest.mark.parametrize(
    ("precision", "dtype", "tolerance"),
    [("f64", torch.float64, 1e-10), ("f32", torch.float32, 1e-5)],
)
@pytest.mark.parametrize("layer", ["layer2", "layer3", "layer4"])
def test_it_is_the_official_search(layer, precision, dtype, tolerance):
    golden = np.load(GOLDEN)
    teacher = torch.from_numpy(golden[f"teacher_{layer}"]).to(dtype)
    local = torch.from_numpy(golden[f"student_local_{layer}"]).to(dtype)
    query = local.mean((2, 3)).unflatten(0, (int(golden["num_crops"]), -1))
    attention, searched = feature_search(query, teacher.chunk(2)[0])
    for found, name in (
        (attention, "attention"),
        (searched.flatten(0, 1), "local_features"),
        (searched.flatten(0, 1).mean((2, 3)), "local_gap"),
    ):
        expected = torch.from_numpy(golden[f"{name}_{layer}_{precision}"])
        torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


def test_attention_is_the_cosine_of_each_query_with_each_position():
    query, key = some()
    attention, searched = feature_search(query, key)
    assert attention.shape == (3, 2, 4, 5) and searched.shape == (3, 2, 8, 4, 5)
    for q in range(3):
        for b in range(2):
            expected = F.cosine_similarity(query[q, b, :, None, None], key[b], dim=0)
            torch.testing.assert_close(attention[q, b], expected)
            torch.testing.assert_close(searched[q, b], expected * key[b])
    torch.testing.assert_close(
        soft_attention(query.transpose(0, 1), key), attention.transpose(0, 1).flatten(2)
    )


def test_attention_depends_on_directions_and_the_result_on_the_length_of_the_key_alone():
    query, key = some()
    attention, searched = feature_search(query, key)
    found, moved = feature_search(5 * query, 3 * key)
    torch.testing.assert_close(found, attention)
    torch.testing.assert_close(moved, 3 * searched)


def test_positions_and_images_may_be_permuted():
    query, key = some(grid=(2, 3))
    attention, searched = feature_search(query, key)
    order = torch.tensor([4, 1, 5, 0, 3, 2])
    shuffled = key.flatten(2)[:, :, order].flip(0).view_as(key)
    found, moved = feature_search(query.flip(1), shuffled)
    torch.testing.assert_close(found.flatten(2), attention.flatten(2)[:, :, order].flip(1))
    torch.testing.assert_close(moved.flatten(3), searched.flatten(3)[..., order].flip(1))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_maps_stay_so_and_the_attention_is_that_of_float32(dtype):
    query, key = some(channels=2048, dtype=dtype)
    query, key = query * 40, key * 40  # whose squares overflow float16 in the sum
    expected, wanted = feature_search(query.float(), key.float())
    with torch.autocast("cpu", torch.bfloat16):
        attention, searched = feature_search(query, key)
    assert attention.dtype == torch.float32 and searched.dtype == dtype
    torch.testing.assert_close(attention, expected)
    torch.testing.assert_close(searched.float(), wanted, rtol=3 * torch.finfo(dtype).eps, atol=1e-5)


def test_an_empty_position_is_not_attended_to_and_nothing_has_a_gradient():
    query, key = some()
    key[:, :, 1, 2] = 0
    attention, searched = feature_search(query.requires_grad_(), key.requires_grad_())
    assert (attention[..., 1, 2] == 0).all() and searched.isfinite().all()
    assert not attention.requires_grad and not searched.requires_grad
