"""Proves that pretraining asks the right questions: masks, held-out figures, and the unigram guesser beside them."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minibert.config import IGNORED, ModelConfig, ModernBertConfig
from minibert.data.batching import tokenise
from minibert.errors import UserError
from minibert.hub import save_mlm
from minibert.metrics import unigram_baseline
from minibert.modern import make_masked_lm
from minibert.options import MLMOptions
from minibert.pretraining import MLMTask, load_start, make_tokenizer, prepare, sample_articles
from minibert.tokenizer import WordPieceTokenizer
from tests.conftest import TEXTS


def make(config: ModelConfig, tokenizer: WordPieceTokenizer, **changes: object) -> MLMTask:
    options = MLMOptions(**{"batch_size": 3, "max_length": 19, "mask_rate": 0.3, **changes})  # type: ignore[arg-type]
    model = make_masked_lm(config).eval()
    train, held_out = (tokenise(texts, tokenizer, 19) for texts in (TEXTS, TEXTS[:5]))
    return MLMTask(model, train, held_out, tokenizer, options)


def test_an_epoch_has_every_article_once(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    task = make(config, tokenizer, mask_rate=1e-9)
    batches = list(task.batches(0, 0))
    assert len(batches) == task.steps_per_epoch == 6  # 16 articles, 3 at a time
    rows = [tuple(row[mask].tolist()) for b in batches for row, mask in zip(b.input_ids, b.attention_mask, strict=True)]
    assert sorted(rows) == sorted(map(tuple, tokenizer.encode(TEXTS, 19)))
    assert sum(batch.tokens for batch in batches) == sum(map(len, rows))


def test_batches_name_their_positions_and_answers(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    masked, plain = (next(make(config, tokenizer, mask_rate=rate, batch_size=16).batches(0, 0)) for rate in (0.5, 1e-9))
    assert masked.positions is not None
    assert len(masked.positions) > 20
    assert torch.equal(masked.labels, plain.input_ids.flatten()[masked.positions])
    changed = (masked.input_ids != plain.input_ids).flatten().nonzero().flatten()
    assert set(changed.tolist()) <= set(masked.positions.tolist())
    assert not tokenizer.special()[masked.labels].any()
    assert (masked.input_ids == tokenizer.mask_id).sum() > 0.5 * len(masked.positions)


def test_masks_are_new_each_epoch_and_the_same_each_time(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    task = make(config, tokenizer)
    first, again = list(task.batches(0, 0)), list(task.batches(0, 4))
    assert torch.equal(first[4].input_ids, again[0].input_ids)
    assert torch.equal(first[5].labels, again[1].labels)
    # Equal articles, so that only the masks can make a difference.
    alike = tokenise([TEXTS[1]] * 9, tokenizer, 19)
    task = MLMTask(task.model, alike, alike, tokenizer, task.options)
    masks = {tuple(batch.labels.tolist()) for epoch in range(3) for batch in task.batches(epoch, 0)}
    assert len(masks) == 9  # three batches in each of three epochs, no two alike


def test_the_loss_is_the_notebooks_dense_loss(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    """Logits everywhere, cross-entropy with -100 ignored: what the notebook's model computes."""
    task = make(config, tokenizer)
    batch = next(task.batches(0, 0))
    total, extras = task.loss(batch)
    labels = torch.full((batch.input_ids.numel(),), IGNORED)
    labels[batch.positions] = batch.labels
    logits = task.model(batch.input_ids, batch.attention_mask).flatten(0, 1)
    torch.testing.assert_close(total / batch.count, F.cross_entropy(logits, labels))
    assert extras["accuracy"] == (logits.argmax(-1) == labels).sum()


def test_held_out_figures_depend_neither_on_batch_size_nor_on_mask_rate(
    config: ModelConfig, tokenizer: WordPieceTokenizer
) -> None:
    torch.manual_seed(3)
    one = make(config, tokenizer, batch_size=1)
    four = make(config, tokenizer, batch_size=4, mask_rate=0.6)
    four.model.load_state_dict(one.model.state_dict())
    assert one.baseline() == four.baseline()
    with torch.no_grad():
        a, b = one.validate(), four.validate()
        assert a == one.validate()
    assert a["held_out_loss"] == pytest.approx(b["held_out_loss"], rel=1e-6)
    assert a["pseudo_perplexity"] == pytest.approx(math.exp(a["held_out_loss"]))


def test_an_untrained_model_knows_nothing(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    with torch.no_grad():
        figures = make(config, tokenizer).validate()
    assert figures["held_out_loss"] == pytest.approx(math.log(61), rel=0.05)


def test_the_unigram_guesser_by_hand() -> None:
    """Counts 3, 1, 0 with one added to each: probabilities 4/7, 2/7, 1/7."""
    loss, accuracy = unigram_baseline(np.array([3, 1, 0]), np.array([0, 0, 1, 2]))
    assert loss == pytest.approx(-(2 * math.log(4 / 7) + math.log(2 / 7) + math.log(1 / 7)) / 4)
    assert accuracy == 0.5


def test_blocks_have_no_padding_and_lose_nothing_but_the_end(
    config: ModelConfig, tokenizer: WordPieceTokenizer
) -> None:
    options = MLMOptions(batch_size=3, max_length=7, mask_rate=1e-9, blocks=True)
    whole, held_out = tokenise(TEXTS, tokenizer, 1_000), tokenise(TEXTS[:5], tokenizer, 1_000)
    task = MLMTask(make_masked_lm(config), whole, held_out, tokenizer, options)
    batches = list(task.batches(0, 0))
    assert len(batches) == task.steps_per_epoch == -(-(whole.tokens // 7) // 3)
    assert all(batch.attention_mask.all() and batch.input_ids.shape[1] == 7 for batch in batches)
    rows = [tuple(row.tolist()) for batch in batches for row in batch.input_ids]
    stream = [token for ids in tokenizer.encode(TEXTS, None) for token in ids]
    assert sorted(rows) == sorted(tuple(stream[i : i + 7]) for i in range(0, len(stream) - 6, 7))


def test_held_out_articles_are_the_same_for_blocks(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    """Cut from whole articles, or cut by the tokenizer: the same ids, the same masks, so the same questions."""
    model = make_masked_lm(config)
    for length in (5, 19):
        cut, whole = (
            MLMTask(
                model, tokenise(TEXTS, tokenizer, most), tokenise(TEXTS, tokenizer, most), tokenizer,
                MLMOptions(batch_size=3, max_length=length, mask_rate=0.5, blocks=blocks),
            )
            for most, blocks in ((length, False), (1_000, True))
        )  # fmt: skip
        assert len(cut.held_out) == len(whole.held_out)
        for ours, theirs in zip(cut.held_out, whole.held_out, strict=True):
            assert torch.equal(ours.input_ids, theirs.input_ids)
            assert torch.equal(ours.labels, theirs.labels)


def test_a_start_at_the_frequencies_is_the_unigram_guesser(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    """With hidden vectors of zero, nothing but the decoder's bias speaks."""
    task = make(config, tokenizer)
    prepare(task, replace(task.options, unigram_bias=True))
    torch.nn.init.zeros_(task.model.head.norm.weight)
    with torch.no_grad():
        figures = task.validate()
    assert figures["held_out_loss"] == pytest.approx(task.baseline()[0], rel=1e-5)


def test_heads_are_pointed_only_if_asked(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    task = make(ModernBertConfig(**{**vars(config), "type_vocab_size": 0}), tokenizer)
    bias = task.model.bert.get_parameter("layers.0.attention.query.bias")
    prepare(task, task.options)
    assert not bias.any()
    prepare(task, replace(task.options, architecture="modernbert", neighbour_heads=True))
    assert bias.any()


def test_a_vocabulary_that_is_given_has_its_own_size(tmp_path: Path) -> None:
    for given in ({"vocab": "vocab.txt"}, {"start_from": "model"}):
        options = MLMOptions(data="toy", vocab_size=99, **given)  # type: ignore[arg-type]
        with pytest.raises(UserError, match="--vocab-size 99 is for --vocab train"), sample_articles(options) as found:
            make_tokenizer(options, found)


def test_nothing_to_learn_from_is_refused(config: ModelConfig, tokenizer: WordPieceTokenizer) -> None:
    task = make(config, tokenizer, blocks=True, max_length=512)
    with pytest.raises(UserError, match="fewer than the 512 of one block"):
        prepare(task, task.options)


def test_a_model_is_trained_further_with_this_runs_dropout(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    before = make_masked_lm(config)
    save_mlm(tmp_path, before, tokenizer)
    model = load_start(MLMOptions(start_from=str(tmp_path), dropout=0.3, max_length=19))
    assert model is not None
    assert model.bert.config == replace(config, hidden_dropout_prob=0.3, attention_probs_dropout_prob=0.3)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before.state_dict()[name]), name
    with pytest.raises(UserError, match=r"--max-length 20: the model in .* has 19 positions"):
        load_start(MLMOptions(start_from=str(tmp_path), max_length=20))
    load_start(MLMOptions(start_from=str(tmp_path), max_length=19, hidden_size=24))  # which it has
    load_start(MLMOptions.of("strong", start_from=str(tmp_path), max_length=19))
    for changes, message in (
        ({"hidden_size": 32}, "--hidden-size 32: the model in .* is trained further as it is, with 24"),
        ({"num_hidden_layers": 3}, "--num-hidden-layers 3: .* with 2"),
        ({"architecture": "modernbert"}, "--architecture modernbert: .* with bert"),
        ({"unigram_bias": True}, "--unigram-bias: the model in .* is trained further as it is; leave it out$"),
    ):
        with pytest.raises(UserError, match=message):
            load_start(MLMOptions(start_from=str(tmp_path), max_length=19, **changes))
    with pytest.raises(UserError, match="--vocab and --start-from"):
        MLMOptions(start_from=str(tmp_path), vocab="vocab.txt")
