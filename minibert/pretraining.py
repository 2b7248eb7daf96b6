"""Pretraining: masked language modelling on articles, from raw text to a saved folder.

Source: Devlin et al. 2019, section 3.1; the notebook, Task 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert import fast
from minibert.bert import BertForMaskedLM
from minibert.checkpoint import tensors_hash
from minibert.config import ARCHITECTURES, IGNORED, ModelConfig
from minibert.data.articles import Articles, TextColumn, TokenisedArticles
from minibert.data.batching import Batch, Blocks, TokenisedTexts, batch_generator, epoch_batches, pad, unknown_share
from minibert.distributed import gather, rank, world_size
from minibert.errors import UserError
from minibert.hub import load_mlm, load_tokenizer
from minibert.hub.names import left_out
from minibert.losses import summed_loss
from minibert.masking import mask_tokens
from minibert.metrics import log_frequencies, unigram_baseline
from minibert.modern import point_at_neighbours
from minibert.options import SIZES, MLMOptions, flag
from minibert.progress import heading
from minibert.run import Run
from minibert.textbook import is_own
from minibert.tokenizer import WordPieceTokenizer
from minibert.training import Task, remedy

HUB_VOCABULARY = "google-bert/bert-base-uncased"
MOST_LOSS = 700.0  # nats; the exponential of more overflows a float


class MLMTask(Task):
    """Masked language modelling as the loop wants it; the last epoch is the one saved, as in the notebook.

    Training masks are drawn anew at every epoch; held-out masks are drawn once, text by text, from the seed alone, so
    that neither batch size nor epoch changes what is asked.
    """

    model: BertForMaskedLM
    options: MLMOptions

    def __init__(
        self,
        model: BertForMaskedLM,
        train: TokenisedTexts,
        held_out: TokenisedTexts,
        tokenizer: WordPieceTokenizer,
        options: MLMOptions,
    ) -> None:
        if is_own(model, BertForMaskedLM, "loss"):
            raise TypeError("MLMTask has a loss of its own: override MLMTask.loss, not the model's")
        self.train: TokenisedTexts | Blocks = Blocks(train, options.max_length) if options.blocks else train
        super().__init__(model, options, len(self.train))
        self.tokenizer, self.special = tokenizer, tokenizer.special()
        self.held_out = list(self._held_out_batches(held_out))

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Batches of an epoch from `start` on, each decided by (seed, epoch, its number) alone."""
        seed, mask_id = self.options.seed, self.tokenizer.mask_id
        for step, rows in epoch_batches(len(self.train), self.step_size, seed, epoch, start):
            input_ids, attention_mask = pad(self.train.take(rows), self.tokenizer.pad_id)
            generator = batch_generator(seed, epoch, step)
            masked, labels = mask_tokens(input_ids, self.special, mask_id, generator, self.options.mask_rate)
            yield _batch(masked, attention_mask, labels)

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
        device = self.model.head.bias.device
        totals = [self.loss(batch.to(device)) for batch in self.held_out[rank() :: world_size()]]
        sums = float(sum(loss for loss, _ in totals)), float(sum(extras["accuracy"] for _, extras in totals))
        count = sum(batch.count for batch in self.held_out)
        loss, accuracy = (sum(each) / count for each in zip(*gather(sums), strict=True))
        perplexity = math.exp(loss) if loss < MOST_LOSS else math.inf
        return {"held_out_loss": loss, "held_out_accuracy": accuracy, "pseudo_perplexity": perplexity}

    def warnings(self, metrics: Mapping[str, float], step: int) -> list[str]:
        """Of a loss at least twice that of a blind guess, which takes all tokens for equally likely and has ln V."""
        loss, blind = metrics["held_out_loss"], math.log(self.model.bert.config.vocab_size)
        symptom = f"training diverges: the held-out loss is {loss:.1f}, and that of a blind guess is {blind:.1f}"
        return [f"{symptom}; {remedy(step)}"] if loss >= 2 * blind else []

    def baseline(self) -> tuple[float, float]:
        """Held-out loss and accuracy of the unigram guesser, who has counted the training tokens."""
        labels = torch.cat([batch.labels for batch in self.held_out])
        if not len(labels):
            raise UserError("no token of the held-out articles is masked: raise --held-out")
        return unigram_baseline(self.counts(), labels.numpy())

    def counts(self) -> NDArray[np.int64]:
        """How often each token may have to be predicted in training, (V,): special ones never."""
        counts = self.train.counts(len(self.special))
        counts[self.special.numpy()] = 0
        return counts

    def _held_out_batches(self, held_out: TokenisedTexts) -> Iterator[Batch]:
        generator, most = batch_generator(self.options.seed, 0, 0), self.options.max_length
        masked, labels = [], []
        for text in held_out:
            # As much of it as the model reads, closed by [SEP], as the tokenizer would cut it.
            cut = text if len(text) <= most else np.append(text[: most - 1], text[-1])
            ids = torch.from_numpy(cut.astype(np.int64))  # (T,)
            # At 15 %, whatever the rate in training, so that runs can be compared.
            hidden, asked = mask_tokens(ids, self.special, self.tokenizer.mask_id, generator)
            masked.append(hidden.numpy())
            labels.append(asked.numpy())
        for first in range(0, len(masked), self.options.batch_size):
            rows = slice(first, first + self.options.batch_size)
            yield _batch(*pad(masked[rows], self.tokenizer.pad_id), pad(labels[rows], IGNORED)[0])


def _batch(input_ids: Tensor, attention_mask: Tensor, labels: Tensor) -> Batch:
    """A batch that names the M positions to be predicted, so that the head need not compute the others."""
    positions = (labels.flatten() != IGNORED).nonzero().flatten()  # (M,)
    return Batch(input_ids, attention_mask, labels.flatten()[positions], positions, tokens=int(attention_mask.sum()))


def sample_articles(options: MLMOptions) -> Articles:
    """The articles that the options ask for; nothing is read yet."""
    return Articles(
        options.data, max_articles=options.max_articles, held_out=options.held_out, seed=options.seed,
        min_characters=options.min_characters, line_by_line=options.line_by_line, cache=options.cache,
    )  # fmt: skip


def make_tokenizer(options: MLMOptions, articles: Articles) -> WordPieceTokenizer:
    """The vocabulary of `--start-from` or `--vocab`, or one learned from the training articles."""
    if options.vocab == "train":
        return WordPieceTokenizer.train(TextColumn(articles.texts.train), options.vocab_size, options.lowercase)
    name = options.start_from or options.vocab
    if not options.lowercase:
        raise UserError(f"--no-lowercase is for --vocab train: {name} itself decides about case")
    if options.vocab_size != MLMOptions.vocab_size:
        raise UserError(f"--vocab-size {options.vocab_size} is for --vocab train: the size of {name} is fixed")
    return load_tokenizer(name)


def with_vocabulary(options: MLMOptions) -> MLMOptions:
    """The options with a vocabulary. The toy world works without a network and has few words: it learns its own."""
    if options.start_from:
        return replace(options, vocab="")
    options.model_config(options.vocab_size, pad_token_id=0)  # a shape that makes no sense is refused before any work
    return replace(options, vocab=options.vocab or ("train" if options.data == "toy" else HUB_VOCABULARY))


def load_start(options: MLMOptions) -> BertForMaskedLM | None:
    """The model in `--start-from`, which keeps its shape; None if a new one is to be made."""
    if not options.start_from:
        return None
    model, _, unused = load_mlm(options.start_from, options.dropout)
    options.check_length(model.bert.config.max_position_embeddings, f"the model in {options.start_from}")
    _check_kept(options, model.bert.config)
    heading("start", options.start_from + (f"; not used: {left_out(unused)}" if unused else ""))
    return model


def _check_kept(options: MLMOptions, config: ModelConfig) -> None:
    """`UserError` if the options ask for a beginning or a shape that the model in `--start-from` does not have."""
    kept: dict[str, Any] = {
        "architecture": next(name for name, kind in ARCHITECTURES.items() if type(config) is kind),
        **{name: getattr(config, name) for name in SIZES}, "neighbour_heads": False, "unigram_bias": False,
    }  # fmt: skip
    usual = MLMOptions.of(options.recipe)
    for name, value in kept.items():
        if (asked := getattr(options, name)) not in (value, getattr(usual, name)):
            text, end = (flag(name), "") if asked is True else (f"{flag(name)} {asked}", f", with {value}")
            raise UserError(f"{text}: the model in {options.start_from} is trained further as it is{end}; leave it out")


def prepare(task: MLMTask, options: MLMOptions) -> None:
    """Set a new model's first biases as the options ask.

    Raises:
        UserError: there is less than one block to learn from.
    """
    if not task.steps_per_epoch:
        few = f"{options.data} has too few tokens to train on, fewer than the {options.max_length:,} of one block"
        raise UserError(f"{few}: give more text, a smaller --max-length, or --no-blocks")
    if options.start_from:
        return
    if options.unigram_bias:
        bias = task.model.head.bias
        bias.data = torch.from_numpy(log_frequencies(task.counts())).to(bias)
    if options.neighbour_heads:
        point_at_neighbours(task.model.bert)


def identify(task: MLMTask, articles: TokenisedArticles) -> dict[str, Any]:
    """What a run depends on besides its options, see `minibert.training.train`."""
    model = task.model
    identity = {"articles": articles.identity["content"], "vocabulary": task.tokenizer.fingerprint()}
    if task.options.start_from:
        identity["start model"] = tensors_hash(model.state_dict(), str(model.bert.config))
    return identity


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
    shape = f"{layers} x {config.hidden_size}, {config.num_attention_heads} heads, {config.intermediate_size:,} inside"
    heading("model", f"{shape}: {parameters:,} parameters")
    loss, accuracy = task.baseline()
    task.announce(run, "blocks" if options.blocks else "articles")
    heading("unigrams", f"held-out loss {loss:.4f}, accuracy {accuracy:.4f}: a guess by frequency")
    sizes = {"parameters": parameters, "articles": len(train), "tokens": train.tokens}
    return {**sizes, "unigram_loss": loss, "unigram_accuracy": accuracy}
