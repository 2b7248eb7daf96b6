"""Proves that the embeddings are the normalised sum of three table rows, and that positions end with their table."""

import pytest
import torch

from minibert.bert import Bert, Embeddings
from minibert.config import ModelConfig
from minibert.modern import WordEmbeddings


def test_is_the_normalised_sum_of_three_rows(config: ModelConfig) -> None:
    embeddings = Embeddings(config).eval()
    torch.nn.init.normal_(embeddings.norm.weight)
    torch.nn.init.normal_(embeddings.norm.bias)
    assert embeddings.position_embeddings is not None
    assert embeddings.token_type_embeddings is not None
    ids, segments = [[7, 3, 9], [1, 60, 1]], [[0, 1, 1], [1, 0, 0]]
    out = embeddings(torch.tensor(ids), torch.tensor(segments))
    for row in range(2):
        for place in range(3):
            vector = (
                embeddings.word_embeddings.weight[ids[row][place]]
                + embeddings.position_embeddings.weight[place]
                + embeddings.token_type_embeddings.weight[segments[row][place]]
            )
            centred = vector - vector.mean()
            normed = centred / (centred.square().mean() + config.layer_norm_eps).sqrt()
            expected = normed * embeddings.norm.weight + embeddings.norm.bias
            torch.testing.assert_close(out[row, place], expected)


def test_no_segments_means_the_first_segment(config: ModelConfig) -> None:
    embeddings = Embeddings(config).eval()
    ids = torch.randint(config.vocab_size, (2, 5))
    torch.testing.assert_close(embeddings(ids), embeddings(ids, torch.zeros_like(ids)), rtol=0, atol=0)
    assert not torch.allclose(embeddings(ids), embeddings(ids, torch.ones_like(ids)))


def test_a_sequence_longer_than_the_positions_is_refused(config: ModelConfig) -> None:
    embeddings = Embeddings(config)
    assert embeddings(torch.ones(1, 19, dtype=torch.long)).shape == (1, 19, 24)
    with pytest.raises(ValueError, match="20 tokens, but the model has 19 positions"):
        embeddings(torch.ones(1, 20, dtype=torch.long))


def test_dropout_acts_in_training_only(config: ModelConfig) -> None:
    embeddings = Embeddings(config)
    ids = torch.randint(config.vocab_size, (40, 19))
    dropped = (embeddings.train()(ids) == 0).float().mean().item()
    assert 0.08 < dropped < 0.12  # 18,240 draws at 0.1: five standard deviations are 0.011
    assert (embeddings.eval()(ids) != 0).all()


def test_the_padding_row_starts_at_zero_and_gets_no_gradient_from_the_lookup(config: ModelConfig) -> None:
    table = Bert(config).embeddings.word_embeddings
    assert (table.weight[0] == 0).all()
    table(torch.tensor([[0, 5]])).sum().backward()
    assert table.weight.grad is not None
    assert (table.weight.grad[0] == 0).all()
    assert (table.weight.grad[5] != 0).all()


def test_without_tables_of_positions_and_segments_it_is_the_tokens_row(config: ModelConfig) -> None:
    embeddings = WordEmbeddings(config).eval()
    assert [name for name, _ in embeddings.named_parameters()] == ["word_embeddings.weight", "norm.weight", "norm.bias"]
    ids = torch.randint(config.vocab_size, (2, 19))
    rows = embeddings.word_embeddings.weight[ids]
    torch.testing.assert_close(embeddings(ids), torch.nn.functional.layer_norm(rows, (24,), eps=config.layer_norm_eps))
    with pytest.raises(ValueError, match="20 tokens, but the model has 19 positions"):
        embeddings(torch.ones(1, 20, dtype=torch.long))
    with pytest.raises(ValueError, match="no segment embeddings"):
        embeddings(ids, torch.zeros_like(ids))
