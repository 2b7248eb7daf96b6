"""Proves that the whole model is transformers' BertForMaskedLM, that the decoder is tied, and that sparse is dense."""

import pytest
import torch
import torch.nn.functional as F
import transformers
from transformers import BertConfig

from minibert.bert import BertForMaskedLM
from minibert.config import IGNORED, ModelConfig
from minibert.modern import make_masked_lm
from minibert.pretrained.names import import_weights, mlm_names


@pytest.fixture
def pair(config: ModelConfig) -> tuple[BertForMaskedLM, transformers.BertForMaskedLM]:
    """A randomly initialised reference, biases and norms included, and ours with its weights."""
    reference = transformers.BertForMaskedLM(BertConfig(**vars(config))).eval()
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    ours = make_masked_lm(config).eval()
    tensors = {name: tensor for name, tensor in reference.state_dict().items() if "decoder" not in name}
    assert import_weights(ours, tensors, mlm_names(config)) == []
    return ours, reference


def test_logits_are_the_references(pair: tuple[BertForMaskedLM, transformers.BertForMaskedLM]) -> None:
    ours, reference = pair
    ids, segments = torch.randint(61, (4, 11)), torch.randint(2, (4, 11))
    mask = torch.arange(11) < torch.tensor([11, 4, 7, 2]).unsqueeze(1)
    expected = reference(input_ids=ids, attention_mask=mask.long(), token_type_ids=segments).logits
    torch.testing.assert_close(ours(ids, mask, segments)[mask], expected[mask], rtol=1e-5, atol=1e-5)


def test_gradients_are_the_references(pair: tuple[BertForMaskedLM, transformers.BertForMaskedLM]) -> None:
    ours, reference = pair
    ids = torch.randint(61, (4, 11))
    labels = torch.where(torch.rand(4, 11) < 0.3, torch.randint(61, (4, 11)), IGNORED)
    reference(input_ids=ids, labels=labels).loss.backward()
    ours.loss(ids, None, labels).backward()
    theirs = {name: parameter.grad for name, parameter in reference.named_parameters()}
    for name, parameter in ours.named_parameters():
        (other,) = (their for their, own in mlm_names(ours.bert.config).items() if own == (name,))
        expected = theirs[other if other in theirs else f"bert.{other}"]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-6, msg=name)


def test_the_loss_is_the_mean_cross_entropy_at_the_masked_positions(config: ModelConfig) -> None:
    model = make_masked_lm(config).eval()
    ids, mask = torch.randint(61, (3, 8)), torch.arange(8) < torch.tensor([8, 3, 5]).unsqueeze(1)
    labels = torch.full((3, 8), IGNORED)
    for place, label in (((0, 0), 7), ((0, 5), 8), ((1, 0), 9), ((2, 4), 10)):
        labels[place] = label
    log_odds = model(ids, mask).log_softmax(dim=-1)
    expected = -(log_odds[0, 0, 7] + log_odds[0, 5, 8] + log_odds[1, 0, 9] + log_odds[2, 4, 10]) / 4
    torch.testing.assert_close(model.loss(ids, mask, labels), expected)


def test_the_decoder_is_the_token_embedding(config: ModelConfig) -> None:
    """One tensor: it is listed once, it moves the logits directly, and both uses give it gradient."""
    model = make_masked_lm(config).eval()
    assert not [name for name in model.state_dict() if "decoder" in name]
    ids = torch.tensor([[5, 6]])
    before = model(ids)[0, :, 50].clone()
    with torch.no_grad():
        model.bert.embeddings.word_embeddings.weight[50] *= 2  # a word that is not in the input
    torch.testing.assert_close(model(ids)[0, :, 50], 2 * before)
    model(ids)[0, 0, 50].backward()
    gradient = model.bert.embeddings.word_embeddings.weight.grad
    assert gradient is not None
    assert gradient[50].abs().sum() > 0  # as an output
    assert gradient[5].abs().sum() > 0  # as an input


def test_one_batch_can_be_learned_by_heart(config: ModelConfig) -> None:
    model = make_masked_lm(config).eval()  # no dropout
    ids, labels = torch.randint(5, 61, (4, 9)), torch.randint(5, 61, (36,))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = F.cross_entropy(model(ids).flatten(0, 1), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.05
