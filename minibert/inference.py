"""Using a trained model: sentences in; vectors, probabilities and guesses out.

    model = minibert.from_pretrained("models/sbert_nli_small")
    model.encode(["A man is playing a guitar."])

Beyond rounding, no answer depends on what else is asked in the same call: padding is invisible to the model, and
sentences are put into batches by their length only to have less of it.
"""

from __future__ import annotations

import csv
import threading
from collections.abc import Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypedDict

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import nn
from tqdm import tqdm

from minibert import fast
from minibert.bert import Bert, BertForMaskedLM
from minibert.config import LABELS
from minibert.data.batching import batches_of_like_length, pad, tokenise
from minibert.device import has_bfloat16, products
from minibert.errors import UserError, printable
from minibert.files import write_file
from minibert.sbert import NLIClassifier, SentenceEncoder, pair_features
from minibert.textbook import is_changed, is_own
from minibert.tokenizer import UNK, WordPieceTokenizer

# On a CPU a pass of at most so many tokens stays in the cache from one layer to the next.
TOKENS_IN_PASS = 2_048
SHOWN, BEGINNING = 10, 30  # pairs of a printed table, and characters of a sentence in it
LONG = 1_000  # from this many sentences on a progress bar is shown, if there is a terminal


class Guess(TypedDict):
    """A word for a [MASK], with the keys of transformers' own pipeline.

    Attributes:
        score: its probability.
        token, token_str: the word, as an id and as text.
        sequence: the whole text with the word in its place.
    """

    score: float
    token: int
    token_str: str
    sequence: str


@dataclass(frozen=True, repr=False, eq=False)
class Predictions:
    """What a model says about pairs.

    Attributes:
        probabilities: (pairs, C) in the order of `names`.
        embeddings: (2 * pairs, W), the premises' vectors and then the hypotheses'.
        names: those of the C labels.
        premises, hypotheses: the pairs' sentences, if they are known.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]
    names: tuple[str, ...] = LABELS
    premises: Sequence[str] = ()
    hypotheses: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.probabilities)

    @property
    def labels(self) -> NDArray[np.int64]:
        """(pairs,) the likeliest label of each, as a place in `names`."""
        return self.probabilities.argmax(axis=1).astype(np.int64)

    def __getitem__(self, rows: NDArray[Any] | slice) -> Predictions:
        """The predictions for some pairs, given as places, as a mask of all pairs, or as a slice."""
        rows = np.atleast_1d(np.arange(len(self.probabilities))[rows])
        sides = self.embeddings.reshape(2, len(self.probabilities), self.embeddings.shape[1])[:, rows]
        texts = ([text[row] for row in rows] if text else () for text in (self.premises, self.hypotheses))
        return Predictions(self.probabilities[rows], sides.reshape(2 * len(rows), sides.shape[2]), self.names, *texts)

    def write_csv(self, path: str | Path, labels: NDArray[np.int64] | None = None, columns: Sequence[str] = ()) -> None:
        """Write a row for each pair: its sentences, its own label, the answer, and the probability of each label.

        Args:
            path: the file, which appears whole or not at all.
            labels: (pairs,) the pairs' own, as places in `names`; -1 for none. No column if no pair has one.
            columns: what the sentences and their label are called; by default premise, hypothesis and label.
        """
        premise, hypothesis, label, *_ = (*(columns or ("premise", "hypothesis")), "label")
        table: dict[str, Sequence[str]] = {premise: self.premises, hypothesis: self.hypotheses}
        if labels is not None and (labels >= 0).any():
            table[label] = [("", *self.names)[number + 1] for number in labels]
        table["prediction"] = [self.names[number] for number in self.labels]
        for name, shares in zip(self.names, self.probabilities.T, strict=True):
            table[f"probability_{name}"] = [f"{share:.6f}" for share in shares]

        def write(file: Path) -> None:
            with file.open("w", encoding="utf-8", newline="", errors="replace") as handle:
                # Lines end with \n. If `csv` knew, it would not quote a cell with \r, and readers would see two rows.
                lines: Any = SimpleNamespace(write=lambda line: handle.write(line.removesuffix("\r\n") + "\n"))
                writer = csv.writer(lines)
                writer.writerow(table)
                writer.writerows(zip(*table.values(), strict=True))

        write_file(Path(path), write)

    def __repr__(self) -> str:
        """A table of the first ten pairs: how they begin, the answer, and the probability of each label."""
        texts = {"premise": self.premises, "hypothesis": self.hypotheses} if self.premises else {}
        texts["answer"] = [self.names[label] for label in self.labels]
        columns = [_padded([name, *map(_beginning, cells[:SHOWN])], "<") for name, cells in texts.items()]
        for name, shares in zip(self.names, self.probabilities[:SHOWN].T, strict=True):
            columns.append(_padded([name, *(f"{share:.4f}" for share in shares)], ">"))
        tail = [f"... and {len(self.probabilities) - SHOWN:,} more"] if len(self.probabilities) > SHOWN else []
        return "\n".join([*map("  ".join, zip(*columns, strict=True)), *tail])


def _beginning(text: str) -> str:
    shown = printable(text)
    return shown if len(shown) <= BEGINNING else f"{shown[: BEGINNING - 3]}..."


def _padded(cells: Sequence[str], side: str) -> list[str]:
    """All cells, as wide as the widest, with their text at one side."""
    width = max(map(len, cells))
    return [f"{cell:{side}{width}}" for cell in cells]


@dataclass(frozen=True)
class TrainedModel:
    """An encoder with all that is needed to use it: what a folder holds, and what `minibert.from_pretrained` returns.

    Attributes:
        sentence_encoder: the network, from ids and mask to a vector.
        tokenizer: its vocabulary.
        max_length: tokens kept of each sentence.
        normalize: whether the folder wants its vectors scaled to length 1.
        masked_lm: the same encoder with its MLM head, if the folder has one; `fill_mask` needs it.
        classifier: the same encoder with its classifier, if the folder has one; `predict` needs it.
        hypothesis_only: the control: it was trained on emptied premises, and predicts from emptied premises.
        ignored: names of weights and settings in the folder that were not used.
    """

    sentence_encoder: SentenceEncoder
    tokenizer: WordPieceTokenizer
    max_length: int
    normalize: bool = False
    masked_lm: BertForMaskedLM | None = None
    classifier: NLIClassifier | None = None
    hypothesis_only: bool = False
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shared = (self.masked_lm is None or self.masked_lm.bert is self.encoder) and (
            self.classifier is None or self.classifier.encoder is self.sentence_encoder
        )
        if not shared:
            raise ValueError("masked_lm and classifier have to share the encoder: replace all of them together")

    @property
    def device(self) -> torch.device:
        """Where the arithmetic is done."""
        return next(self.encoder.parameters()).device

    def to(self, device: torch.device | str) -> TrainedModel:
        """Move all parts to another device, in place; returns the model itself."""
        for network in self.networks:
            network.to(device)
        return self

    @property
    def encoder(self) -> Bert:
        """The BERT by itself: called with ids and mask, it gives the last hidden states."""
        return self.sentence_encoder.bert

    @property
    def networks(self) -> list[nn.Module]:
        """All parts with weights; they share the encoder."""
        parts = (self.sentence_encoder, self.masked_lm, self.classifier)
        return [network for network in parts if network is not None]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classifier's labels, in the order of its probabilities; none without one."""
        return self.classifier.labels if self.classifier else ()

    @property
    def embedding_size(self) -> int:
        """How many numbers a sentence's vector has."""
        return self.sentence_encoder.size

    def encode(
        self,
        sentences: str | Sequence[str],
        batch_size: int = 32,
        normalize: bool | None = None,
        precision: str = "float32",
    ) -> NDArray[np.float32]:
        """One vector a sentence, in the order given.

        Args:
            sentences: any number of texts, or one; each is cut to `max_length` tokens.
            batch_size: sentences in a pass through the network; changes the vectors by no more than rounding.
            normalize: whether to scale vectors to length 1, so that their dot product is the cosine; None does what the
                folder says (its modules.json).
            precision: "float32", or "bfloat16", whose products have 8 bits of precision and take about half the time;
                only where the hardware has units for them (docs/speed.md).
        Returns:
            (sentences, `embedding_size`) float32, or (`embedding_size`,) for one string.
        Raises:
            TypeError: a sentence is not a string.
            UserError: `batch_size` is below 1, `precision` is another, or the device has no units for bfloat16.
        """
        if isinstance(sentences, str):
            return self.encode([sentences], batch_size, normalize, precision)[0]
        _check_no_table(sentences)
        if batch_size < 1:
            raise UserError(f"batch_size {batch_size}: it has to be at least 1")
        if precision not in ("float32", "bfloat16"):
            raise UserError(f"precision {precision!r}: it has to be float32 or bfloat16")
        if precision == "bfloat16" and not has_bfloat16(self.device):
            raise UserError(f"precision bfloat16: torch finds no units for it in this {self.device.type}; use float32")
        if normalize is None:
            normalize = self.normalize
        texts = tokenise(sentences, self.tokenizer, self.max_length)
        vectors = np.empty((len(texts), self.embedding_size), dtype=np.float32)
        tokens_in_pass = TOKENS_IN_PASS if self.device.type == "cpu" else None
        bar = tqdm(total=len(texts), desc="encoding", unit="text", disable=len(texts) < LONG or None)
        with evaluating(self.sentence_encoder), products(precision, self.device), bar:
            for rows in batches_of_like_length(texts.lengths, batch_size, tokens_in_pass):
                input_ids, mask = pad([texts[row] for row in rows], self.tokenizer.pad_id)  # (B, T) each
                mask = mask.to(self.device)
                pooled = fast.sentence_vectors(self.sentence_encoder, input_ids.to(self.device), mask).float()  # (B, W)
                if normalize:
                    pooled = F.normalize(pooled, dim=-1)
                vectors[rows] = pooled.cpu().numpy()
                bar.update(len(rows))
        return _finite(vectors)

    def similarity(self, first: str | Sequence[str], second: str | Sequence[str]) -> NDArray[np.float32]:
        """The cosine of each of A sentences with each of B: (A, B), from -1 to 1; one string is one sentence."""
        u, v = (np.atleast_2d(self.encode(sentences, normalize=True)) for sentences in (first, second))
        return (u @ v.T).clip(-1, 1)

    def predict(self, premises: Sequence[str], hypotheses: Sequence[str], batch_size: int = 64) -> Predictions:
        """How likely each label is: whether a premise entails its hypothesis, leaves it open, or contradicts it.

        Args:
            premises, hypotheses: as many of the one as of the other.
            batch_size: as in `encode`.
        Raises:
            TypeError, UserError: as in `encode`; the model has no classifier; the lists differ in length or are empty.
        """
        if self.classifier is None:
            raise UserError("this model has no classifier: train_nli.py writes a folder with one")
        if isinstance(premises, str) or isinstance(hypotheses, str):
            raise TypeError("predict wants lists of sentences: for one pair, [premise], [hypothesis]")
        _check_no_table(premises, hypotheses)
        if len(premises) != len(hypotheses) or len(premises) == 0:
            raise UserError(
                f"{len(premises)} premises and {len(hypotheses)} hypotheses: give as many of the one as of the other,"
                " and at least one"
            )
        if is_own(self.classifier, NLIClassifier) or is_changed(self.classifier):
            raise TypeError("predict goes through a classifier's encoder and score: override these, not its forward")
        seen = [""] * len(premises) if self.hypothesis_only else premises
        # What `NLIClassifier.forward` does, except that sentences of similar length are encoded together.
        embeddings = self.encode([*seen, *hypotheses], batch_size, normalize=False)  # (2 * pairs, W)
        with evaluating(self.classifier):
            u, v = torch.from_numpy(embeddings).to(self.classifier.classifier.weight).chunk(2)  # (pairs, W) each
            logits = self.classifier.score(pair_features(u, v)).float()
            probabilities = logits.softmax(dim=-1)  # (pairs, C)
        shares = _finite(probabilities.cpu().numpy())
        return Predictions(shares, embeddings, self.classifier.labels, list(premises), list(hypotheses))

    def fill_mask(self, text: str, top_k: int = 5) -> list[Guess] | list[list[Guess]]:
        """The likeliest words for a [MASK], the best first.

        The answers are those of transformers' `pipeline("fill-mask")`, in the same form: with several [MASK] in the
        text, each has a list of its own, in whose sequences the other [MASK] stay.

        Args:
            text: with at least one [MASK].
            top_k: how many words for each [MASK].
        Raises:
            UserError: the model has no MLM head; the text has no [MASK], or more tokens than the model reads; or the
                vocabulary has fewer than `top_k` words.
        """
        if self.masked_lm is None:
            raise UserError("this model has no MLM head: train_mlm.py writes a folder with one")
        ids = np.array(self.tokenizer.encode([text], max_length=None)[0])  # (T,)
        places = np.flatnonzero(ids == self.tokenizer.mask_id)  # (M,)
        if not len(places):
            raise UserError("there is no [MASK] in the text: write one where a word is to be guessed")
        if len(ids) > self.encoder.config.max_position_embeddings:
            raise UserError(
                f"the text has {len(ids):,} tokens: the model reads {self.encoder.config.max_position_embeddings}"
            )
        if not 1 <= top_k <= self.tokenizer.vocab_size:
            raise UserError(f"top_k {top_k}: it has to be from 1 to {self.tokenizer.vocab_size:,}")
        with evaluating(self.masked_lm):
            input_ids, positions = (torch.from_numpy(array).to(self.device) for array in (ids, places))
            logits = self.masked_lm(input_ids.unsqueeze(0))[0, positions].float()  # (M, V)
            scores, tokens = (tensor.cpu().numpy() for tensor in logits.softmax(dim=-1).topk(top_k))  # (M, k) each
        answers = [
            [self._guess(ids, place, token, score, alone=len(places) == 1) for score, token in zip(*row, strict=True)]
            for place, *row in zip(places.tolist(), _finite(scores).tolist(), tokens.tolist(), strict=True)
        ]
        return answers[0] if len(places) == 1 else answers

    def attention(self, text: str) -> tuple[list[str], NDArray[np.float32]]:
        """How much every head of every layer attends to each token of a text.

        Args:
            text: cut to `max_length` tokens.
        Returns:
            its T tokens, including [CLS] and [SEP], and (L, H, T, T) weights: row t says how much token t
            attends to each token, and sums to 1.
        Raises:
            TypeError: `text` is not a string.
        """
        ids = self.tokenizer.encode([text], self.max_length)  # one row of T
        with evaluating(self.encoder):
            maps = self.encoder.attention_maps(torch.tensor(ids, device=self.device))  # (L, 1, H, T, T)
        return self.tokenizer.tokens(ids[0]), _finite(maps.squeeze(1).float().cpu().numpy())

    def read(self, text: str, name: str) -> tuple[list[str], list[str]]:
        """The tokens read from a text called `name`, and what one should know of them, a sentence each.

        Raises:
            UserError: there is nothing in the text to read.
        """
        ids = self.tokenizer.encode([text], max_length=self.max_length + 1)[
            0
        ]  # one more than is read, in case there are more
        if len(ids) == 2:  # [CLS] and [SEP]
            raise UserError(f"{name} is empty: write a sentence there")
        tokens, notes = self.tokenizer.tokens(self.tokenizer.encode([text], max_length=self.max_length)[0]), []
        if len(ids) > self.max_length:
            notes.append(f"{name} has more than the {self.max_length} tokens that are read; the rest is left out.")
        if UNK in tokens:
            notes.append(f"{UNK} in {name} stands for something that the vocabulary can't spell.")
        if self.known_share(text) < 1 / 2:
            unknown = f"most words of {name} are unknown to this model, which can only spell them"
            notes.append(f"{unknown}: its answers mean little.")
        return tokens, [note[0].upper() + note[1:] for note in notes]

    def known_share(self, *texts: str) -> float:
        """The share of the words read that are whole in the vocabulary; 1 if there are no words."""
        known = []
        for ids in self.tokenizer.encode(texts, self.max_length):
            tokens = self.tokenizer.tokens(ids)
            for token, after in pairwise([*tokens, ""]):
                if token == UNK or token[:1].isalnum():  # the beginning of a word
                    known.append(token != UNK and not after.startswith("##"))
        return sum(known) / len(known) if known else 1.0

    def _guess(self, ids: NDArray[np.int64], place: int, token: int, score: float, alone: bool) -> Guess:
        filled = ids.copy()
        filled[place] = token
        sequence = self.tokenizer.decode(filled.tolist(), skip_special=alone)
        return Guess(score=score, token=token, token_str=self.tokenizer.decode([token]), sequence=sequence)


def _check_no_table(*arguments: object) -> None:
    """Refuse a set, which has no order, and a table (a DataFrame, a data set), which gives its columns' names."""
    if any(isinstance(texts, Set | Mapping) for texts in arguments):
        raise TypeError("give sentences in a list, since answers keep its order: a set or a dictionary has none")
    if any(hasattr(texts, "columns") or hasattr(texts, "column_names") for texts in arguments):
        raise TypeError("give sentences in a list or in one column: table['column'], not the table")


def _finite(numbers: NDArray[np.float32]) -> NDArray[np.float32]:
    """The numbers that a model gives, which have to be finite.

    Raises:
        UserError: they overflowed on the way, though the weights are finite.
    """
    if not np.isfinite(numbers).all():
        raise UserError("the model's numbers overflow float32: its weights are too large to compute with, or damaged")
    return numbers


# The modules that have to go back to training, and how many callers are still evaluating with each.
_BORROWED: dict[nn.Module, int] = {}
_LOCK = threading.Lock()


@contextmanager
def evaluating(network: nn.Module) -> Iterator[None]:
    """No dropout and no gradients inside; afterwards each part of the network is back in the mode that it was in.

    Threads may share a network: its parts go back when the last thread has left.
    """
    with _LOCK:
        borrowed = [module for module in network.modules() if module.training or module in _BORROWED]
        for module in borrowed:
            _BORROWED[module] = _BORROWED.get(module, 0) + 1
            module.training = False
    try:
        with torch.no_grad():  # not inference_mode: what a layer keeps for later may be needed in training
            yield
    finally:
        with _LOCK:
            for module in borrowed:
                _BORROWED[module] -= 1
                if not _BORROWED[module]:
                    del _BORROWED[module]
                    module.training = True
