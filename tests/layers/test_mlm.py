"""Proves that BERT with its head learns, and that the whole is transformers' model."""

from typing import Any

import pytest
import torch

from minibert.bert import Bert, BertForMaskedLM
from minibert.config import IGNORED, ModelConfig
from tests.layers import oracles
from tests.layers.oracles import CONFIG, MASK


def make(config: ModelConfig) -> BertForMaskedLM:
    return BertForMaskedLM(Bert(config))


def test_it_trains_by_itself() -> None:
    """The textbook alone, without the package's training: one batch is learned by heart."""
    model = make(ModelConfig(**{**vars(CONFIG), "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}))
    ids = oracles.some_ids()
    labels = oracles.some_ids(1).masked_fill(~MASK, IGNORED)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        loss = model.loss(ids, MASK, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
    assert torch.equal(model.eval()(ids, MASK).argmax(dim=-1)[MASK], labels[MASK])


@pytest.fixture
def pair() -> tuple[BertForMaskedLM, Any]:
    """A reference with random weights, biases and norms included, and ours with its weights."""
    transformers = pytest.importorskip("transformers")
    from minibert.hub.names import import_weights, mlm_names

    reference = oracles.scatter(transformers.BertForMaskedLM(transformers.BertConfig(**vars(CONFIG))))
    ours = make(CONFIG).eval()
    tensors = {name: tensor for name, tensor in reference.state_dict().items() if "decoder" not in name}
    assert import_weights(ours, tensors, mlm_names(CONFIG)) == []
    return ours, reference


def test_logits_are_the_references(pair: tuple[BertForMaskedLM, Any]) -> None:
    (ours, reference), ids, segments = pair, oracles.some_ids(), oracles.some_segments()
    expected = reference(input_ids=ids, attention_mask=MASK.long(), token_type_ids=segments).logits
    torch.testing.assert_close(ours(ids, MASK, segments)[MASK], expected[MASK], rtol=1e-5, atol=1e-5)


def test_gradients_are_the_references(pair: tuple[BertForMaskedLM, Any]) -> None:
    from minibert.hub.names import mlm_names

    (ours, reference), ids = pair, oracles.some_ids()
    labels = oracles.some_ids(1).masked_fill(~MASK, IGNORED)
    reference(input_ids=ids, attention_mask=MASK.long(), labels=labels).loss.backward()
    ours.loss(ids, MASK, labels).backward()
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in ours.named_parameters():
        (other,) = (their for their, own in mlm_names(CONFIG).items() if own == (name,))
        expected = theirs[other if other in theirs else f"bert.{other}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)
