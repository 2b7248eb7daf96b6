"""Proves that rotary positions are a turn in the plane, that only distance counts, and that they are transformers'."""

import cmath
import math

import pytest
import torch
from transformers.models.modernbert.modeling_modernbert import apply_rotary_pos_emb

from minibert.modern import pointing, rotate


def test_each_pair_is_a_complex_number_that_is_turned() -> None:
    """By hand, with Python's own complex numbers: z exp(i p theta^(-2j/K))."""
    heads, K, theta = torch.randn(2, 5, 6), 6, 50.0
    out = rotate(heads, theta)
    for row in range(2):
        for p in range(5):
            for j in range(K // 2):
                point = complex(heads[row, p, j].item(), heads[row, p, j + K // 2].item())
                turned = point * cmath.exp(1j * p * theta ** (-2 * j / K))
                assert out[row, p, j].item() == pytest.approx(turned.real, abs=1e-5)
                assert out[row, p, j + K // 2].item() == pytest.approx(turned.imag, abs=1e-5)


def test_a_product_depends_on_the_distance_alone() -> None:
    query, key = torch.randn(2, 8)
    at_every_place = torch.stack([query, key]).unsqueeze(1).expand(2, 20, 8)  # the same vectors at 20 positions
    queries, keys = rotate(at_every_place, 10_000.0)
    products = queries @ keys.T  # (20, 20)
    for distance in range(-19, 20):
        diagonal = products.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)
    assert products[0].std() > 0.01


def test_lengths_are_kept_and_the_first_position_is_not_turned() -> None:
    heads = torch.randn(3, 2, 7, 4)
    out = rotate(heads, 10.0)
    torch.testing.assert_close(out.norm(dim=-1), heads.norm(dim=-1))
    torch.testing.assert_close(out[..., 0, :], heads[..., 0, :])
    assert not torch.allclose(out[..., 1, :], heads[..., 1, :])


@pytest.mark.parametrize("theta", [10_000.0, 160_000.0])
def test_is_transformers_own(theta: float) -> None:
    query, key = torch.randn(2, 3, 4, 128, 64)
    frequencies = 1 / theta ** (torch.arange(0, 64, 2) / 64)
    angles = torch.outer(torch.arange(128.0), frequencies).repeat(1, 2)[None]
    expected = apply_rotary_pos_emb(query, key, angles.cos(), angles.sin())
    torch.testing.assert_close((rotate(query, theta), rotate(key, theta)), tuple(expected))


def test_the_precision_is_that_of_the_heads() -> None:
    heads = torch.randn(2, 5, 6)
    half = rotate(heads.bfloat16(), 50.0)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), rotate(heads.bfloat16().float(), 50.0), rtol=1e-2, atol=1e-2)


@pytest.mark.parametrize("distance", [-3, -1, 0, 1, 2])
@pytest.mark.parametrize("size", [64, 6])
def test_a_pointed_head_scores_highest_at_its_distance(distance: int, size: int) -> None:
    """The same biases at every position, turned: the score is the sum of cosines of the distance from the target."""
    query, key = pointing(size, 10_000.0, distance)
    queries, keys = (rotate(bias.expand(20, size), 10_000.0) for bias in (query, key))
    scores = queries @ keys.T  # (20, 20)
    for place in range(5, 15):
        assert scores[place].argmax() == place + distance
    pairs = min(8, size // 2)
    angles = [10_000.0 ** (-2 * i / size) for i in range(pairs)]
    for place, other in ((10, 10), (10, 12), (4, 9)):
        expected = 4 * sum(math.cos(angle * (other - place - distance)) for angle in angles)
        assert scores[place, other].item() == pytest.approx(expected, abs=1e-4)
