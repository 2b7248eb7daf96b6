"""Proves that the schedules are the notebook's, and that every parameter is trained."""

import pytest
import torch
from transformers import get_constant_schedule_with_warmup, get_linear_schedule_with_warmup

from minibert.config import ModelConfig
from minibert.modern import make_masked_lm
from minibert.optimizer import adamw, schedule
from minibert.options import DECAYED, MLMOptions


@pytest.mark.parametrize("total", [1, 7, 100, 5067])
@pytest.mark.parametrize("ratio", [0.0, 0.06, 0.5])
def test_schedules_are_transformers_own(total: int, ratio: float) -> None:
    for name, reference in (
        ("linear", lambda o, w: get_linear_schedule_with_warmup(o, w, total)),
        ("constant", get_constant_schedule_with_warmup),
    ):
        optimizer = torch.optim.SGD([torch.zeros(1)], lr=1.0)
        theirs = reference(optimizer, int(total * ratio))
        ours = schedule(name, total, ratio)
        for step in range(min(total, 200)):
            assert ours(step) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
            optimizer.step()
            theirs.step()


def test_an_unknown_schedule_is_refused() -> None:
    with pytest.raises(ValueError, match="cosine"):
        schedule("cosine", 10, 0.0)


@pytest.mark.parametrize("decayed", DECAYED)
def test_each_parameter_is_in_one_group_and_moves(config: ModelConfig, decayed: str) -> None:
    model = make_masked_lm(config)
    optimizer = adamw(model, MLMOptions(decayed=decayed))
    listed = [id(parameter) for group in optimizer.param_groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    model(torch.randint(5, 61, (8, 19)), token_type_ids=torch.randint(2, (8, 19))).square().mean().backward()
    optimizer.step()
    for name, parameter in model.named_parameters():
        assert not torch.equal(before[name], parameter), name


def test_is_the_notebooks_adamw(config: ModelConfig) -> None:
    """The notebook calls torch's AdamW with nothing but a rate and a decay."""
    ours, theirs = make_masked_lm(config).eval(), make_masked_lm(config).eval()
    theirs.load_state_dict(ours.state_dict())
    first = adamw(ours, MLMOptions(learning_rate=1e-3))
    second = torch.optim.AdamW(theirs.parameters(), lr=1e-3, weight_decay=0.01)
    for _ in range(3):
        ids = torch.randint(5, 61, (2, 9))
        for model, optimizer in ((ours, first), (theirs, second)):
            optimizer.zero_grad()
            model(ids).square().mean().backward()
            optimizer.step()
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-7, msg=name)


def test_only_what_is_asked_for_is_decayed(config: ModelConfig) -> None:
    """With gradients of zero, a step of AdamW changes nothing but by decay: a factor of 1 - rate * decay."""
    for decayed in DECAYED:
        model = make_masked_lm(config)
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter)
            parameter.grad = torch.zeros_like(parameter)
        before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
        adamw(model, MLMOptions(learning_rate=0.5, weight_decay=0.1, decayed=decayed)).step()
        for name, parameter in model.named_parameters():
            shrinks = decayed == "all" or not (name.endswith("bias") or "norm" in name)
            torch.testing.assert_close(parameter, before[name] * (0.95 if shrinks else 1.0), msg=name)


def test_beta2_reaches_the_optimiser(config: ModelConfig) -> None:
    assert adamw(make_masked_lm(config), MLMOptions(beta2=0.9)).defaults["betas"] == (0.9, 0.9)
