"""Fine-tuning: the Siamese classifier on sentence pairs, from raw text to a saved folder.

Source: Reimers & Gurevych 2019, section 3; the notebook, Task 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from minibert import fast
from minibert.checkpoint import tensors_hash
from minibert.data.batching import (
    Batch,
    TokenisedTexts,
    batches_of_like_length,
    epoch_batches,
    pad,
    tokenise,
    unknown_share,
)
from minibert.data.files import digest
from minibert.data.pairs import Pairs, repeated_pairs
from minibert.distributed import gather, rank, world_size
from minibert.errors import UserError
from minibert.hub import load_classifier, load_encoder
from minibert.hub.names import left_out
from minibert.inference import TrainedModel, evaluating
from minibert.losses import contrastive_loss, mix, summed_loss
from minibert.metrics import mean_cosine, temperature
from minibert.options import NLIOptions
from minibert.progress import heading, warning
from minibert.run import Run
from minibert.sbert import NLIClassifier, SentenceEncoder, pair_features
from minibert.textbook import is_own
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import FEW_STEPS, Task, remedy

COLLAPSED = 0.99  # mean cosine between sentences
PORTION = 256  # pairs that a control is asked about at once
LEAST = 1e-6  # no probability of a control counts as less, so that no logarithm is infinite
DIVERGED = 10.0  # nats; a blind guess has ln 3 = 1.1, and answers that are sure but wrong somewhat more


class NLITask(Task):
    """Pair classification as the loop wants it; the epoch that is best on the validation pairs is kept."""

    score = "validation_accuracy"
    model: NLIClassifier
    options: NLIOptions

    def __init__(
        self,
        model: NLIClassifier,
        tokenizer: WordPieceTokenizer,
        train: Pairs,
        validation: Pairs,
        options: NLIOptions,
        control: TrainedModel | None = None,
    ) -> None:
        if is_own(model, NLIClassifier):
            raise TypeError("NLITask goes through a classifier's encoder and score: override these, not its forward")
        super().__init__(model, options, len(train))
        self.tokenizer, self.device = tokenizer, next(model.parameters()).device
        self.train, self.train_labels = self._tokenised(train), train.labels
        self.validation, self.validation_labels = self._tokenised(validation), validation.labels
        self.priors = None  # (pairs, C), added to the logits of the training pairs
        if control is not None:
            self.priors = options.debias_weight * log_probabilities(control.to(self.device), train)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of an epoch from `start` on, each decided by (seed, epoch, its number) alone."""
        options = self.options
        lengths = _lengths(self.train) if options.group_by_length else None
        for _, rows in epoch_batches(len(self.train_labels), self.step_size, options.seed, epoch, start, lengths):
            batch = self._batch(self.train, self.train_labels, rows)
            yield batch if self.priors is None else replace(batch, prior=self.priors[rows])

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy summed over the pairs, with what the options add to it, and how many are classified right.

        A control's log-probabilities for them are added to the logits that are compared with the labels: the model need
        only supply what is missing from the answer (Clark et al. 2019, "Don't take the easy way out", bias product; He
        et al. 2019, "Unlearn dataset bias"). In validation and in use, it answers by itself.

        An entailed pair is compared with, and pairs are mixed with, only sentences of the same micro-batch: with
        `--accumulate`, or on several ranks, they are fewer.
        """
        options, labels = self.options, batch.labels
        u, v, features, logits = self.forward(batch)
        prior = torch.zeros_like(logits) if batch.prior is None else batch.prior  # (N, C)
        own_loss, correct = summed_loss(logits, labels)
        extras = {"accuracy": correct}
        if options.mixup or options.contrast or options.debias:
            extras["cross_entropy"] = own_loss  # by itself it can be compared with validation's
        loss = F.cross_entropy(logits + prior, labels, reduction="sum")
        if options.mixup:
            mixtures, targets = mix(torch.cat([features, prior], dim=-1), labels, len(self.model.labels), options.mixup)
            features, prior = mixtures.tensor_split([features.shape[1]], dim=-1)
            loss = (loss + F.cross_entropy(self.logits(features) + prior, targets, reduction="sum")) / 2
        if options.contrast:
            loss = loss + options.contrast * contrastive_loss(u, v, labels == options.entailed)
        return loss, extras

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The vectors u and v of B pairs, (B, W) each, their features, and the logits (B, C)."""
        encoder = self.model.encoder
        encode = encoder if self.options.textbook else partial(fast.sentence_vectors, encoder)
        u, v = encode(batch.input_ids, batch.attention_mask).chunk(2)
        features = pair_features(u, v)
        return u, v, features, self.logits(features)

    def logits(self, features: Tensor) -> Tensor:
        """The logits for the features of pairs, or of mixtures of pairs."""
        return self.model.score(features) if self.options.textbook else fast.score(self.model, features)

    def validate(self) -> dict[str, float]:
        """Metrics over the validation pairs, whose batches ranks share: mean loss and accuracy; the mean cosine between
        hypotheses, near 1 if the encoder has collapsed; and the share of the label that is answered most.
        """
        count, sums = len(self.validation_labels), list(torch.zeros(4, device=self.device))
        for batch in self._validation_batches(rank(), world_size()):
            _, v, _, logits = self.forward(batch)
            answers = F.one_hot(logits.argmax(dim=-1), len(self.model.labels)).sum(dim=0)  # (C,)
            terms = (*summed_loss(logits, batch.labels), answers, F.normalize(v, dim=-1).sum(dim=0))  # the last is (W,)
            sums = [total + term for total, term in zip(sums, terms, strict=True)]
        ranks = gather([total.double().cpu() for total in sums])  # zeros, where there are fewer batches than ranks
        loss, correct, answers, directions = (sum(each) for each in zip(*ranks, strict=True))
        return {
            "validation_loss": loss.item() / count,
            "validation_accuracy": correct.item() / count,
            "mean_cosine": mean_cosine(directions, count),
            "most_answered": answers.max().item() / count,
        }

    def warnings(self, metrics: Mapping[str, float], step: int) -> list[str]:
        """Of a collapsed encoder, of a loss that no guesser has, and of a classifier that always gives one answer."""
        few, found = step < FEW_STEPS, []
        longer = f"after {step:,} steps it may have hardly begun: more of them (--epochs)"
        if metrics["mean_cosine"] > COLLAPSED:
            symptom = f"the mean cosine between sentences is {metrics['mean_cosine']:.3f}, so all look alike"
            advice = f"{longer} or another --encoder" if few else "a lower --learning-rate or another --encoder"
            found.append(f"the encoder has collapsed: {symptom}; {advice} usually helps")
        if metrics["validation_loss"] > DIVERGED:
            symptom = f"training diverges: the validation loss is {metrics['validation_loss']:.1f}"
            found.append(f"{symptom}; {remedy(step)}")
        if metrics["most_answered"] == 1:
            advice = f"{longer} usually help" if few else "a lower --learning-rate usually helps"
            found.append(f"every validation pair is given the same label; {advice}")
        return found

    def calibrate(self) -> float:
        """Divide the classifier's logits by the temperature that suits the validation pairs best, and return it.

        It changes no answer, only how sure the classifier is of it. The last layer's weights are divided, so whoever
        reads the folder has it.

        Source: Guo et al. 2017, "On calibration of modern neural networks", section 4.2 (temperature scaling).
        """
        logits, labels = [], []
        with evaluating(self.model):
            for batch in self._validation_batches():
                logits.append(self.forward(batch)[-1].cpu())
                labels.append(batch.labels.cpu())
        divisor = temperature(torch.cat(logits).double().numpy(), torch.cat(labels).numpy())
        if divisor is None:
            why = "they may be too few, or all answered right"
            print(warning(f"the validation pairs do not tell how sure answers should be ({why}): not calibrated"))
            return 1.0
        with torch.no_grad():
            for parameter in self.model.classifier.parameters():
                parameter.div_(divisor)
        return divisor

    def _validation_batches(self, first: int = 0, step: int = 1) -> Iterator[Batch]:
        """Batches of validation pairs of similar length: number `first`, and every `step`-th after it."""
        batches = batches_of_like_length(_lengths(self.validation), self.options.batch_size)
        for rows in islice(batches, first, None, step):
            yield self._batch(self.validation, self.validation_labels, rows).to(self.device)

    def _tokenised(self, pairs: Pairs) -> tuple[TokenisedTexts, TokenisedTexts]:
        """Premises and hypotheses as ids."""
        tokenizer, length = self.tokenizer, self.options.max_length
        premises = [""] * len(pairs) if self.options.hypothesis_only else pairs.premises
        return tokenise(premises, tokenizer, length), tokenise(pairs.hypotheses, tokenizer, length)

    def _batch(self, sides: tuple[TokenisedTexts, TokenisedTexts], labels: np.ndarray, rows: np.ndarray) -> Batch:
        """(2B, T): the premises of these rows, then their hypotheses."""
        ids, mask = pad([side[row] for side in sides for row in rows], self.tokenizer.pad_id)
        return Batch(ids, mask, torch.from_numpy(labels[rows]), tokens=int(mask.sum()), sequences=2)


def _lengths(sides: tuple[TokenisedTexts, TokenisedTexts]) -> np.ndarray:
    """(pairs,) the number of tokens of each pair's longer side."""
    return np.maximum(*(side.lengths for side in sides))


def make_classifier(options: NLIOptions) -> tuple[NLIClassifier, WordPieceTokenizer]:
    """The pretrained encoder with a classifier that has learned nothing yet, and its tokenizer."""
    encoder, tokenizer, unused = load_encoder(options.encoder)
    options.check_length(encoder.config.max_position_embeddings, f"the encoder in {options.encoder}")
    heading("encoder", options.encoder + (f"; not used: {left_out(unused)}" if unused else ""))
    sentence_encoder = SentenceEncoder(encoder, options.pooling, options.projection)
    return NLIClassifier(sentence_encoder, options.dropout, options.label_names), tokenizer


def load_control(options: NLIOptions) -> TrainedModel | None:
    """The control whose knowledge is not to be learned again, if one is given."""
    if not options.debias:
        return None
    control = load_classifier(options.debias)
    if not control.hypothesis_only:
        raise UserError(f"--debias {options.debias} is not a control: train one with --hypothesis-only")
    if control.labels != options.label_names:
        raise UserError(f"--debias {options.debias} has other labels: {', '.join(control.labels)}")
    heading("control", f"{options.debias}: what it knows, times {options.debias_weight:g}, is added to the logits")
    return control


def identify(task: NLITask, train: Pairs, validation: Pairs, control: TrainedModel | None) -> dict[str, Any]:
    """What a run depends on besides its options, see `minibert.training.train`."""
    bert = task.model.encoder.bert
    identity = {
        "encoder": tensors_hash(bert.state_dict(), str(bert.config)), "vocabulary": task.tokenizer.fingerprint(),
        "training pairs": train.identity, "validation pairs": validation.identity,
    }  # fmt: skip
    if control is not None:
        weights = control.networks[-1].state_dict()  # its classifier, with the encoder in it
        about = f"{control.encoder.config} {control.tokenizer.fingerprint()} {control.max_length}"
        identity["control"] = tensors_hash(weights, about)
    return identity


def log_probabilities(control: TrainedModel, pairs: Pairs) -> Tensor:
    """(pairs, C) float32: what a control says of pairs; it reads only their hypotheses."""
    portions = []  # since it makes two vectors of each, which would fill the memory
    for first in tqdm(range(0, len(pairs), PORTION), desc="asking the control", disable=None):  # on a terminal only
        rows = slice(first, first + PORTION)
        portions.append(control.predict(pairs.premises[rows], pairs.hypotheses[rows]).probabilities)
    return torch.from_numpy(np.concatenate(portions)).clamp_min(LEAST).log()


def introduce(task: NLITask, train: Pairs, validation: Pairs, run: Run[NLIOptions]) -> dict[str, Any]:
    """Print what is about to be trained on what; returns the sizes and baselines that metrics.jsonl begins with."""
    heading("pairs", f"{len(train):,} to train on, {len(validation):,} for validation, from {train.source}")
    labels = task.model.labels
    counts = dict(zip(labels, np.bincount(train.labels, minlength=len(labels)), strict=True))
    heading("labels", ", ".join(f"{label} {count:,}" for label, count in counts.items()) + " in training")
    for label in [label for label, count in counts.items() if not count]:
        print(warning(f"no pair to train on is labelled {label}, so the model can't learn it"), flush=True)
    if repeated := repeated_pairs(train, validation):
        heading("repeated", f"{repeated:,} of the pairs for validation are in training, too")
    if run.options.hypothesis_only:
        heading("control", "the premises are emptied: what is reached now is reached without inference")
    sides = task.train[run.options.hypothesis_only :]  # an error if one of them can't be spelled at all
    if (unknown := max(unknown_share(side, task.tokenizer, run.options.data) for side in sides)) > 0.01:
        heading("unknown", f"{unknown:.1%} [UNK]: what the encoder's vocabulary can't spell")
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    majority = float(np.bincount(validation.labels).max() / len(validation))
    heading("model", f"{parameters:,} parameters with the classifier")
    task.announce(run, "pairs")
    heading("majority", f"validation accuracy {majority:.4f}: always answering the most frequent label")
    files = [digest([file]) for file in train.files]
    return {"parameters": parameters, "pairs": len(train), "majority_accuracy": majority, "files": files}
