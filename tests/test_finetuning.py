"""Proves that fine-tuning pairs the right sentences with the right label, and that the control sees no premise."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from minibert.bert import Bert, EncoderBlock
from minibert.config import LABELS, ModelConfig
from minibert.data.pairs import Pairs
from minibert.errors import UserError
from minibert.finetuning import NLITask, load_control, make_classifier
from minibert.hub import save_classifier, save_mlm
from minibert.inference import TrainedModel
from minibert.losses import mix
from minibert.modern import make_masked_lm
from minibert.options import NLIOptions
from minibert.sbert import NLIClassifier, SentenceEncoder
from minibert.tokenizer import WordPieceTokenizer

PAIRS = Pairs(
    premises=["the cat sat", "the dog sat on the mat", "an animal is on the log", "cats", "dogs sleep"],
    hypotheses=["a cat", "an animal sat", "the mat is sleeping", "dogs and dogs and dogs", "no"],
    labels=np.array([0, 1, 2, 2, 0]),
)


Make = Callable[..., NLITask]


@pytest.fixture
def make(config: ModelConfig, tokenizer: WordPieceTokenizer) -> Make:
    """Makes a task of other options, and perhaps of a model, of a control and of pairs that are given."""

    def call(
        model: NLIClassifier | None = None, control: TrainedModel | None = None, pairs: Pairs = PAIRS, **changes: Any
    ) -> NLITask:
        options = NLIOptions(**{"batch_size": 2, "max_length": 8, **changes})
        model = model or NLIClassifier(SentenceEncoder(Bert(config), options.pooling)).eval()
        return NLITask(model, tokenizer, pairs, pairs, options, control)

    return call


def trained(task: NLITask) -> TrainedModel:
    """The task's network, as a folder would give it back."""
    control = task.options.hypothesis_only
    return TrainedModel(task.model.encoder, task.tokenizer, 8, classifier=task.model, hypothesis_only=control)


@pytest.mark.parametrize("grouped", [False, True])
def test_an_epoch_has_every_pair_once_with_its_label(grouped: bool, make: Make, tokenizer: WordPieceTokenizer) -> None:
    task = make(group_by_length=grouped)
    seen = []
    for batch in task.batches(0, 0):
        rows = [tuple(row[mask].tolist()) for row, mask in zip(batch.input_ids, batch.attention_mask, strict=True)]
        half = len(rows) // 2
        seen += list(zip(rows[:half], rows[half:], batch.labels.tolist(), strict=True))
    premises, hypotheses = (map(tuple, tokenizer.encode(side, 8)) for side in (PAIRS.premises, PAIRS.hypotheses))
    assert sorted(seen) == sorted(zip(premises, hypotheses, PAIRS.labels.tolist(), strict=True))
    assert task.steps_per_epoch == 3


def test_pairs_of_like_length_by_hand(make: Make) -> None:
    """A pair is as long as its longer side, be that the premise or the hypothesis."""
    words = ["cat", "cat " * 2, "cat " * 4, "cat " * 5]
    pairs = Pairs([words[2], words[0], words[0], words[1]], [words[0], words[3], words[1], words[0]], np.zeros(4, int))
    task = make(pairs=pairs, group_by_length=True)
    lengths = sorted(sorted(batch.attention_mask.sum(dim=1).tolist()) for batch in task.batches(0, 0))
    assert lengths == [[3, 3, 4, 4], [3, 3, 6, 7]]


def test_the_loss_is_the_notebooks(make: Make, tokenizer: WordPieceTokenizer) -> None:
    """Each side padded to the full length and encoded by itself, as the notebook does; cross-entropy over the pairs."""
    task = make(batch_size=5)
    batch = next(task.batches(0, 0))
    total, extras = task.loss(batch)
    order = [[tuple(x) for x in tokenizer.encode(PAIRS.hypotheses, 8)].index(tuple(row[mask].tolist()))
             for row, mask in zip(batch.input_ids[5:], batch.attention_mask[5:], strict=True)]  # fmt: skip
    sides = []
    for texts in (PAIRS.premises, PAIRS.hypotheses):
        ids = torch.zeros(5, 8, dtype=torch.long)
        for row, index in enumerate(order):
            encoded = tokenizer.encode([texts[index]], 8)[0]
            ids[row, : len(encoded)] = torch.tensor(encoded)
        hidden = task.model.encoder.bert(ids, ids != 0)
        mask = (ids != 0).unsqueeze(-1).float()
        sides.append((hidden * mask).sum(dim=1) / mask.sum(dim=1))
    u, v = sides
    logits = task.model.classifier(torch.cat([u, v, torch.abs(u - v)], dim=1))
    labels = torch.from_numpy(PAIRS.labels[order])
    torch.testing.assert_close(total / batch.count, F.cross_entropy(logits, labels))
    assert extras["accuracy"] == (logits.argmax(-1) == labels).sum()


def test_the_contrastive_loss_is_added_in_its_weight(make: Make) -> None:
    """Pairs 0 and 4 are entailed; each is compared with all five."""
    plain = make(batch_size=5)
    task = make(plain.model, batch_size=5, contrast=0.7)
    batch = next(task.batches(0, 0))
    u, v = (F.normalize(side, dim=-1) for side in task.model.encoder(batch.input_ids, batch.attention_mask).chunk(2))
    logits = u @ v.T * 20
    expected = sum(
        (F.cross_entropy(logits[row], torch.tensor(row)) + F.cross_entropy(logits[:, row], torch.tensor(row))) / 2
        for row in torch.nonzero(batch.labels == 0).flatten().tolist()
    )
    (with_contrast, extras), (without, _) = task.loss(batch), plain.loss(batch)
    torch.testing.assert_close(with_contrast - without, 0.7 * expected)
    torch.testing.assert_close(extras["cross_entropy"], without)


@pytest.mark.parametrize("hypothesis_only", [False, True])
def test_validation_is_what_predict_says(make: Make, hypothesis_only: bool) -> None:
    task = make(hypothesis_only=hypothesis_only)
    with torch.no_grad():
        figures = task.validate()
    predictions = trained(task).predict(PAIRS.premises, PAIRS.hypotheses)
    assert figures["validation_accuracy"] == pytest.approx((predictions.labels == PAIRS.labels).mean())
    likelihood = predictions.probabilities[np.arange(5), PAIRS.labels]
    assert figures["validation_loss"] == pytest.approx(-np.log(likelihood).mean(), rel=1e-5)


def test_the_control_sees_no_premise(make: Make) -> None:
    task = make(hypothesis_only=True)
    for batch in task.batches(0, 0):
        half = len(batch.labels)
        assert (batch.attention_mask[:half].sum(dim=1) == 2).all()  # [CLS] and [SEP]
        assert (batch.attention_mask[half:].sum(dim=1) > 2).all()
    shuffled = trained(task).predict(PAIRS.premises[::-1], PAIRS.hypotheses)
    assert (shuffled.probabilities == trained(task).predict(PAIRS.premises, PAIRS.hypotheses).probabilities).all()


def test_validation_tells_a_collapsed_encoder_and_a_classifier_with_one_answer(make: Make) -> None:
    task = make()
    with torch.no_grad():
        figures = task.validate()
        predictions = trained(task).predict(PAIRS.premises, PAIRS.hypotheses)
        hypotheses = F.normalize(torch.from_numpy(predictions.embeddings[5:]), dim=-1)
        cosines = hypotheses @ hypotheses.T
        assert figures["mean_cosine"] == pytest.approx((cosines.sum().item() - 5) / 20, abs=1e-5)
        assert figures["most_answered"] == np.bincount(predictions.labels).max() / 5
        assert task.warnings({**figures, "mean_cosine": 0.98, "most_answered": 0.8}, 500) == []

        norm = cast(EncoderBlock, task.model.encoder.bert.layers[-1]).feed_forward_norm
        norm.weight.zero_()  # every token's vector is the norm's bias now
        norm.bias.fill_(1)
        figures = task.validate()
    assert figures["mean_cosine"] == pytest.approx(1)
    assert figures["most_answered"] == 1
    for steps, advice in (
        (20, "after 20 steps it may have hardly begun: more of them"),
        (500, "a lower --learning-rate"),
    ):
        collapsed, one_answer = task.warnings(figures, steps)
        assert collapsed.startswith("the encoder has collapsed: the mean cosine between sentences is 1.000")
        assert one_answer.startswith("every validation pair is given the same label")
        assert f"; {advice}" in collapsed
        assert f"; {advice}" in one_answer


def test_calibration_changes_confidence_and_no_answer(make: Make) -> None:
    task = make()
    torch.nn.init.normal_(task.model.classifier.weight, std=3)
    torch.nn.init.normal_(task.model.classifier.bias, std=3)  # it is divided, too
    predictions = trained(task).predict(PAIRS.premises, PAIRS.hypotheses)
    task.validation_labels = predictions.labels.copy()
    task.validation_labels[0] = (task.validation_labels[0] + 1) % 3  # four of five are right
    with torch.no_grad():
        before = task.validate()
        divisor = task.calibrate()
        after = task.validate()
    calibrated = trained(task).predict(PAIRS.premises, PAIRS.hypotheses)
    assert after["validation_loss"] < before["validation_loss"] - 0.1
    assert after["validation_accuracy"] == before["validation_accuracy"]
    assert divisor > 1
    scaled = predictions.probabilities ** (1 / divisor)
    np.testing.assert_allclose(calibrated.probabilities, scaled / scaled.sum(axis=1, keepdims=True), rtol=1e-4)
    assert task.calibrate() == pytest.approx(1, abs=1e-3)  # nothing is left to gain


def test_pairs_that_tell_nothing_do_not_calibrate(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """All are answered right, so the surest answers would be the best, on these."""
    task = make()
    torch.nn.init.normal_(task.model.classifier.weight, std=3)
    task.validation_labels = trained(task).predict(PAIRS.premises, PAIRS.hypotheses).labels.copy()
    before = task.model.classifier.weight.clone()
    assert task.calibrate() == 1
    assert torch.equal(task.model.classifier.weight, before)
    assert "warning: the validation pairs do not tell how sure answers should be" in capsys.readouterr().out


def test_every_option_of_the_classifier_reaches_it(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    save_mlm(tmp_path, make_masked_lm(config), tokenizer)
    options = NLIOptions(encoder=str(tmp_path), dropout=0.3, pooling="max", projection=40)
    model, _ = make_classifier(options)
    assert (model.dropout.p, model.encoder.pooling) == (0.3, "max")
    assert model.classifier.weight.shape == (3, 3 * 40)
    assert model.encoder.bert.config == config  # its dropout among it


def test_a_classifier_with_a_forward_of_its_own_is_not_trained_as_the_usual_one(
    make: Make, config: ModelConfig
) -> None:
    class Backwards(NLIClassifier):
        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
            return super().forward(input_ids.flip(0), attention_mask.flip(0))

    with pytest.raises(TypeError, match="override these, not its forward"):
        make(Backwards(SentenceEncoder(Bert(config))))


def test_half_of_the_loss_is_on_mixtures(make: Make) -> None:
    """Equal random states draw equal mixtures; without dropout the rest is arithmetic."""
    plain = make(batch_size=5)
    task = make(plain.model, batch_size=5, mixup=0.4)
    batch = next(task.batches(0, 0))
    u, v = task.model.encoder(batch.input_ids, batch.attention_mask).chunk(2)
    torch.manual_seed(5)
    mixtures, targets = mix(torch.cat([u, v, (u - v).abs()], dim=1), batch.labels, 3, 0.4)
    mixed = -(targets * task.model.classifier(mixtures).log_softmax(dim=1)).sum()
    torch.manual_seed(5)
    (total, extras), (without, _) = task.loss(batch), plain.loss(batch)
    torch.testing.assert_close(total, (without + mixed) / 2)
    torch.testing.assert_close(extras["cross_entropy"], without)


@pytest.fixture
def control(config: ModelConfig, tokenizer: WordPieceTokenizer) -> TrainedModel:
    """A control that is sure of something else with each hypothesis."""
    network = NLIClassifier(SentenceEncoder(Bert(config))).eval()
    with torch.no_grad():
        network.classifier.weight.normal_(0, 0.1)
    return TrainedModel(network.encoder, tokenizer, 8, classifier=network, hypothesis_only=True)


@pytest.mark.parametrize("textbook", [False, True])
def test_what_a_control_knows_is_added_to_the_logits(make: Make, control: TrainedModel, textbook: bool) -> None:
    """Both opinions' product is compared with the labels: probabilities times probabilities, made to add up to 1."""
    changes = {"debias": "control", "debias_weight": 0.7, "textbook": textbook, "pooling": "max"}
    task = make(control=control, batch_size=5, **changes)
    batch = next(task.batches(0, 0))
    total, extras = task.loss(batch)

    knows = control.predict([""] * 5, PAIRS.hypotheses).probabilities
    assert np.ptp(knows, axis=0).max() > 0.05  # so that a wrong row would show
    own = trained(task).predict(PAIRS.premises, PAIRS.hypotheses)
    both = own.probabilities * knows**0.7
    both /= both.sum(axis=1, keepdims=True)
    assert total.item() == pytest.approx(-np.log(both[np.arange(5), PAIRS.labels]).sum(), rel=1e-5)
    assert extras["cross_entropy"].item() == pytest.approx(
        -np.log(own.probabilities[np.arange(5), PAIRS.labels]).sum(), rel=1e-5
    )
    assert extras["accuracy"] == (own.labels == PAIRS.labels).sum()
    parts = [task.loss(batch.part(index, 3))[0] for index in range(3)]
    torch.testing.assert_close(torch.stack(parts).sum(), total)  # each part has its own pairs' opinions
    with torch.no_grad():
        assert task.validate()["validation_accuracy"] == pytest.approx((own.labels == PAIRS.labels).mean())


def test_of_a_mixture_a_control_knows_its_share_of_both(make: Make, control: TrainedModel) -> None:
    task = make(control=control, batch_size=5, debias="control", debias_weight=1.5, mixup=0.4)
    batch = next(task.batches(0, 0))
    assert batch.prior is not None
    u, v = task.model.encoder(batch.input_ids, batch.attention_mask).chunk(2)
    features = torch.cat([u, v, (u - v).abs()], dim=1)
    torch.manual_seed(5)
    shares = torch.distributions.Beta(torch.full((5, 1), 0.4), torch.full((5, 1), 0.4)).sample()
    others = torch.randperm(5)

    def mixed(values: torch.Tensor) -> torch.Tensor:
        return shares * values + (1 - shares) * values[others]

    logits = task.model.classifier(mixed(features)) + mixed(batch.prior)
    own = (task.model.classifier(features) + batch.prior).log_softmax(dim=1)
    labels = F.one_hot(batch.labels, 3).float()
    expected = -(labels * own).sum() / 2 - (mixed(labels) * logits.log_softmax(dim=1)).sum() / 2
    torch.manual_seed(5)
    torch.testing.assert_close(task.loss(batch)[0], expected)


def test_a_control_that_knows_nothing_changes_nothing(make: Make, control: TrainedModel) -> None:
    """Equal chances for all labels are one number added to all logits, which no softmax sees."""
    assert control.classifier is not None
    with torch.no_grad():
        control.classifier.classifier.weight.zero_()
        control.classifier.classifier.bias.zero_()
    plain = make(batch_size=5)
    task = make(plain.model, control, batch_size=5)
    torch.testing.assert_close(task.loss(next(task.batches(0, 0)))[0], plain.loss(next(plain.batches(0, 0)))[0])


def test_a_control_of_another_kind_is_refused(
    config: ModelConfig, tokenizer: WordPieceTokenizer, tmp_path: Path
) -> None:
    for name, labels, is_control in (("model", LABELS, False), ("others", ("yes", "no"), True)):
        network = NLIClassifier(SentenceEncoder(Bert(config)), labels=labels)
        save_classifier(tmp_path / name, network, tokenizer, 8, hypothesis_only=is_control)
    save_mlm(tmp_path / "mlm", make_masked_lm(config), tokenizer)
    for name, message in (
        ("model", "is not a control: train one with --hypothesis-only"),
        ("others", "has other labels: yes, no"),
        ("mlm", "has no classifier"),
        ("missing", "no folder"),
    ):
        with pytest.raises(UserError, match=message):
            load_control(NLIOptions(debias=str(tmp_path / name)))
    with pytest.raises(UserError, match="--debias control: a control learns what hypotheses tell"):
        NLIOptions(debias="control", hypothesis_only=True)
    with pytest.raises(UserError, match=r"--debias-weight 0\.5 needs --debias"):
        NLIOptions(debias_weight=0.5)
