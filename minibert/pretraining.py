"""Pretraining: masked language modelling on articles, from raw text to a saved folder.

Source: Devlin et al. 2019, section 3.1; the notebook, Task 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert import fast
from minibert.bert import BertForMaskedLM
from minibert.config import IGNORED
from minibert.data.articles import Articles, TextColumn, TokenisedArticles
from minibert.data.batching import (
    Batch,
    Blocks,
    TokenisedTexts,
    batch_generator,
    batches_per_epoch,
    epoch_batches,
    pad,
    unknown_share,
)
from minibert.device import describe
from minibert.distributed import gather, rank, world_size
from minibert.errors import UserError
from minibert.hub import load_mlm, load_tokenizer
from minibert.losses import summed_loss
from minibert.masking import mask_tokens
from minibert.metrics import log_frequencies, unigram_baseline
from minibert.modern import point_at_neighbours
from minibert.options import MLMOptions
from minibert.progress import heading
from minibert.run import Run
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import examples_per_step, total_steps

HUB_VOCABULARY = "google-bert/bert-base-uncased"
MOST_LOSS = 700.0  # nats; the exponential of more is no float


class MLMTask:
    """Masked language modelling as the loop wants it.

    Training masks are drawn anew at every epoch; held-out masks are drawn once, text by text, from the seed alone, so
    that neither batch size nor epoch changes what is asked.

    Args:
        model: the one that is trained.
        train, held_out: tokenised articles.
        tokenizer: for the special tokens.
        options: batch size, mask rate, seed.
    """

    score = None  # the last epoch is the one saved, as in the notebook

    def __init__(
        self,
        model: BertForMaskedLM,
        train: TokenisedTexts,
        held_out: TokenisedTexts,
        tokenizer: WordPieceTokenizer,
        options: MLMOptions,
    ) -> None:
        if type(model).loss is not BertForMaskedLM.loss:
            raise TypeError("MLMTask has a loss of its own: override MLMTask.loss, not the model's")
        self.model, self.tokenizer, self.options = model, tokenizer, options
        self.train: TokenisedTexts | Blocks = Blocks(train, options.max_length) if options.blocks else train
        self.mask_id, self.pad_id, self.special = tokenizer.mask_id, tokenizer.pad_id, tokenizer.special()
        self.device = next(model.parameters()).device
        self.step_size = examples_per_step(options)
        self.steps_per_epoch = batches_per_epoch(len(self.train), self.step_size)
        self.held_out = list(self._held_out_batches(held_out))

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of an epoch from `start` on, each decided by (seed, epoch, its number) alone."""
        options = self.options
        for step, rows in epoch_batches(len(self.train), self.step_size, options.seed, epoch, start):
            input_ids, attention_mask = pad(self.train.take(rows), self.pad_id)
            yield self._masked(input_ids, attention_mask, batch_generator(options.seed, epoch, step))

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross-entropy summed over the masked positions, and how many were guessed right."""
        if batch.positions is None:
            raise ValueError("the batch does not say which positions are to be predicted")
        # Without a mask, CUDA's flash kernel can be used; with one it can't, and another does the work.
        mask = batch.attention_mask if batch.padded else None
        if self.options.textbook:
            logits = self.model(batch.input_ids, mask).flatten(0, 1)[batch.positions]  # (M, V)
            loss, correct = summed_loss(logits, batch.labels)
        else:
            loss, correct = fast.mlm_loss(self.model, batch.input_ids, mask, batch.positions, batch.labels)
        return loss, {"accuracy": correct}

    def validate(self) -> dict[str, float]:
        """Loss in nats, accuracy and pseudo-perplexity at the masked positions of the held-out articles.

        Pseudo-perplexity is the exponential of that loss. (Salazar et al. 2020, section 2.3, mask one token at a time,
        T passes a text; with more tokens hidden at once the figure is higher.) Ranks share the batches.
        """
        totals = [self.loss(batch.to(self.device)) for batch in self.held_out[rank() :: world_size()]]
        count = sum(batch.count for batch in self.held_out)
        loss = sum(gather(float(sum(loss for loss, _ in totals)))) / count
        accuracy = sum(gather(float(sum(extras["accuracy"] for _, extras in totals)))) / count
        perplexity = math.exp(loss) if loss < MOST_LOSS else math.inf
        return {"held_out_loss": loss, "held_out_accuracy": accuracy, "pseudo_perplexity": perplexity}

    def warnings(self, metrics: Mapping[str, float], /) -> list[str]:
        """A loss that no guesser has: one that takes all tokens for equally likely has ln V."""
        blind = math.log(self.model.bert.config.vocab_size)
        if metrics["held_out_loss"] < 2 * blind:
            return []
        return [
            f"training diverges: the held-out loss is {metrics['held_out_loss']:.1f}, and that of a blind guess is"
            f" {blind:.1f}; a lower --learning-rate usually helps"
        ]

    def baseline(self) -> tuple[float, float]:
        """Held-out loss and accuracy of the unigram guesser, who has counted the training tokens.

        Raises:
            UserError: no held-out token is masked, so there is nothing to guess.
        """
        labels = torch.cat([batch.labels for batch in self.held_out])
        if not len(labels):
            raise UserError("no token of the held-out articles is masked: raise --held-out")
        return unigram_baseline(self.counts(), labels.numpy())

    def counts(self) -> NDArray[np.int64]:
        """How often each token may be asked for in training, (V,): special ones never."""
        counts = self.train.counts(len(self.special))
        counts[self.special.numpy()] = 0
        return counts

    def _masked(self, input_ids: Tensor, attention_mask: Tensor, generator: torch.Generator) -> Batch:
        masked, labels = mask_tokens(input_ids, self.special, self.mask_id, generator, self.options.mask_rate)
        return _batch(masked, attention_mask, labels)

    def _held_out_batches(self, held_out: TokenisedTexts) -> Iterator[Batch]:
        generator = batch_generator(self.options.seed, 0, 0)
        masked, labels = [], []
        for row in range(len(held_out)):
            text = self._beginning(held_out.take([row])[0])
            ids = torch.from_numpy(text.astype(np.int64)).unsqueeze(0)  # (1, T)
            # At 15 %, whatever the rate in training, so that runs can be compared.
            text_masked, text_labels = mask_tokens(ids, self.special, self.mask_id, generator)
            masked.append(text_masked[0].numpy())
            labels.append(text_labels[0].numpy())
        size = self.options.batch_size
        for start in range(0, len(masked), size):
            input_ids, attention_mask = pad(masked[start : start + size], self.pad_id)
            yield _batch(input_ids, attention_mask, pad(labels[start : start + size], IGNORED)[0])

    def _beginning(self, text: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
        """As much of a text as the model reads, closed by [SEP]: what the tokenizer gives of it at that length."""
        return (
            text if len(text) <= self.options.max_length else np.append(text[: self.options.max_length - 1], text[-1])
        )


def _batch(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Batch:
    """A batch that names the M positions to be predicted, so that the head need not compute the others."""
    positions = (labels.flatten() != IGNORED).nonzero().flatten()  # (M,)
    return Batch(input_ids, attention_mask, labels.flatten()[positions], positions, tokens=int(attention_mask.sum()))


def open_articles(options: MLMOptions) -> Articles:
    """The articles that the options ask for; nothing is read yet."""
    return Articles(
        options.data,
        max_articles=options.max_articles,
        held_out=options.held_out,
        min_characters=options.min_characters,
        seed=options.seed,
        line_by_line=options.line_by_line,
        cache=options.cache,
    )


def make_tokenizer(options: MLMOptions, articles: Articles) -> WordPieceTokenizer:
    """The vocabulary that `--vocab` names, or one learned from the training articles."""
    if options.vocab == "train":
        texts = TextColumn(articles.texts.train)
        return WordPieceTokenizer.train(texts, options.vocab_size, options.lowercase)
    if not options.lowercase:
        raise UserError(f"--no-lowercase is for --vocab train: {options.vocab} says itself what becomes of case")
    return load_tokenizer(options.vocab)


def settled(options: MLMOptions) -> MLMOptions:
    """The options with a vocabulary. The toy world works without a network and has few words: it learns its own.

    Raises:
        UserError: the model's shape makes no sense, which is found out before any work.
    """
    if not options.start_from:
        options.model_config(options.vocab_size, pad_token_id=0)
    learned = "train" if options.data == "toy" else HUB_VOCABULARY
    return replace(options, vocab=options.start_from or options.vocab or learned)


def load_start(options: MLMOptions) -> BertForMaskedLM | None:
    """The model in `--start-from`, whose shape is its own; None if a new one is to be made.

    Raises:
        UserError: there is no such model, or it reads fewer tokens than `--max-length`.
    """
    if not options.start_from:
        return None
    model, _, unused = load_mlm(options.start_from, options.dropout)
    if options.max_length > model.bert.config.max_position_embeddings:
        raise UserError(
            f"--max-length {options.max_length}: the model in {options.start_from} has"
            f" {model.bert.config.max_position_embeddings} positions"
        )
    heading("start", options.start_from + (f"; not used of it: {', '.join(unused)}" if unused else ""))
    return model


def prepare(task: MLMTask, options: MLMOptions) -> None:
    """Give a new model the head start that the options ask for.

    Raises:
        UserError: there is less text than one block of it.
    """
    if not task.steps_per_epoch:
        raise UserError(
            f"{options.data} has too few tokens to train on, fewer than the {options.max_length:,} of one block: give"
            " more text, a smaller --max-length, or --no-blocks"
        )
    if options.unigram_bias and not options.start_from:
        bias = task.model.head.bias
        bias.data = torch.from_numpy(log_frequencies(task.counts())).to(bias)
    if options.neighbour_heads and not options.start_from:
        point_at_neighbours(task.model.bert)


def introduce(task: MLMTask, articles: TokenisedArticles, run: Run[MLMOptions]) -> dict[str, float]:
    """Print what is about to be trained on what; returns the sizes and baselines that metrics.jsonl begins with."""
    options, config, train = run.options, task.model.bert.config, articles.train
    heading("articles", f"{len(train):,} to train on, {len(articles.held_out):,} held out, from {articles.source}")
    if articles.repeated:
        heading("repeated", f"{articles.repeated:,} more are held out, too, and left out of training")
    unknown = max(unknown_share(part, task.tokenizer, options.data) for part in (train, articles.held_out))
    kept = "all" if options.blocks else f"the first {options.max_length}"
    missing = f"; {unknown:.1%} [UNK]" if unknown > 0.01 else ""
    heading("tokens", f"{train.tokens:,}, {kept} of each article{missing}")
    heading("cache", f"{'reused from' if articles.reused else 'written to'} {articles.folder}")
    heading("vocabulary", f"{task.tokenizer.vocab_size:,} pieces")
    parameters = sum(parameter.numel() for parameter in task.model.parameters())
    layers = "1 layer" if config.num_hidden_layers == 1 else f"{config.num_hidden_layers} layers"
    heading(
        "model",
        f"{layers} x {config.hidden_size}, {config.num_attention_heads} heads, {config.intermediate_size:,} inside:"
        f" {parameters / 1e6:.1f} M parameters",
    )
    unigram_loss, unigram_accuracy = task.baseline()
    steps, what = total_steps(task, options), "blocks" if options.blocks else "articles"
    heading("training", f"{steps:,} steps of {task.step_size} {what} on {describe(run.device, world_size())}")
    heading("unigrams", f"held-out loss {unigram_loss:.4f}, accuracy {unigram_accuracy:.4f}: a guess by frequency")
    return {
        "parameters": parameters,
        "articles": len(train),
        "tokens": train.tokens,
        "unigram_loss": unigram_loss,
        "unigram_accuracy": unigram_accuracy,
    }
