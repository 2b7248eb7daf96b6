"""Proves that a mixture lies between two examples, and that its target has the shares of their labels in it."""

import pytest
import torch
import torch.nn.functional as F

from minibert.losses import mix


def test_each_example_has_its_share_in_features_and_target_alike() -> None:
    """Features that are one-hot of the example show who is in a mixture, and with which share."""
    labels = torch.tensor([0, 1, 2, 2, 1, 0, 0])
    mixtures, targets = mix(torch.eye(7, dtype=torch.float64), labels, 3, 1.0)
    torch.testing.assert_close(mixtures.sum(dim=1), torch.ones(7, dtype=torch.float64))
    assert ((mixtures > 0).sum(dim=1) <= 2).all()
    assert (mixtures >= 0).all()
    assert (mixtures.diagonal() > 0).all(), "an example is one of the two in its own mixture"
    torch.testing.assert_close(targets, mixtures @ F.one_hot(labels, 3).double())


def test_every_example_is_another_ones_partner_once() -> None:
    torch.manual_seed(3)
    mixtures, _ = mix(torch.eye(50, dtype=torch.float64), torch.zeros(50, dtype=torch.long), 3, 1.0)
    partners = mixtures.fill_diagonal_(0) > 0
    assert (partners.sum(dim=0) <= 1).all()
    assert partners.sum() >= 45  # a permutation of 50 leaves one in its place on average
    assert not torch.equal(partners, partners.roll((1, 1), dims=(0, 1))), "all are shifted alike"


@pytest.mark.parametrize("alpha", [0.1, 0.4, 1.0, 5.0])
def test_shares_are_of_a_beta_distribution(alpha: float) -> None:
    """Its mean is 1/2, its variance 1 / (4 (2 alpha + 1)), and no two examples share a draw."""
    features = torch.cat([torch.ones(20_000, 1), torch.zeros(20_000, 1)])
    mixtures, _ = mix(features, torch.zeros(40_000, dtype=torch.long), 3, alpha)
    own = mixtures[:20_000, 0]
    shares = own[own < 1].double()  # the partner has a 0; about half of them
    assert len(shares) > 8_000
    assert shares.mean().item() == pytest.approx(0.5, abs=0.02)
    assert shares.var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_it_passes_gradients_on_to_both() -> None:
    features = torch.randn(6, 4, requires_grad=True)
    mixtures, targets = mix(features, torch.arange(6) % 3, 3, 0.4)
    mixtures.sum().backward()
    assert features.grad is not None
    torch.testing.assert_close(features.grad.sum(), torch.tensor(24.0))
    assert not targets.requires_grad


def test_one_example_is_mixed_with_itself() -> None:
    features = torch.randn(1, 4)
    mixtures, targets = mix(features, torch.tensor([2]), 3, 0.4)
    torch.testing.assert_close(mixtures, features)
    torch.testing.assert_close(targets, torch.tensor([[0.0, 0.0, 1.0]]))
