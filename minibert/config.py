"""Every setting there is: the model's shape, and one dataclass of options for each script.

`ModelConfig` uses the field names of BERT's own config.json, so that a folder written here is read by everyone else's
tools. The scripts' options are dataclasses too: a field is a flag (`max_length` is `--max-length`), its default is the
flag's default, its `help` is the line that `--help` prints. Unless a comment says otherwise, a default is the course
notebook's own value.

This file imports nothing heavy: `--help` has to answer before torch has loaded.

Source: Devlin et al. 2019, section 3 (the model's shape); the notebook "A4: Do you AGREE?" (the options' defaults).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Self

from minibert.errors import UserError

# The order is SNLI's own (0, 1, 2). Data sets, the classifier's rows, reports and saved folders all use this one list.
LABELS = ("entailment", "neutral", "contradiction")

# Where the defaults of a training's options come from: the notebook, or what was found to do better (docs/recipe.md).
RECIPES = ("notebook", "strong")

# What the learning rate does once it is up: stay there, or fall to 0 at the last step (minibert.training.optim).
SCHEDULES = ("constant", "linear")

# How a sentence's token vectors become one (minibert.sbert).
POOLINGS = ("mean", "cls", "max")

# Which weights are decayed (minibert.training.optim).
DECAYED = ("all", "matrices")

# The numbers that training computes with (minibert.device).
PRECISIONS = ("auto", "float32", "bfloat16")

# More than any BERT has: a configuration that asks for more is damaged, or meant to do damage.
_MOST = {"num_hidden_layers": 1_000, "vocab_size": 2**24}
MOST_WIDTH = 2**20  # all other sizes

# Marks a position that is not predicted: torch's own default `ignore_index` for cross-entropy.
IGNORED = -100


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a BERT, named as in BERT's config.json.

    The defaults are the notebook's small BERT: 11.1 M parameters with the vocabulary of bert-base-uncased.

    Raises:
        UserError: a size is not positive, a rate is outside [0, 1), or the heads do not divide the hidden size.
    """

    vocab_size: int = 30_522  # V
    hidden_size: int = 256  # D
    num_hidden_layers: int = 4  # L
    num_attention_heads: int = 4  # H
    intermediate_size: int = 1_024  # F
    max_position_embeddings: int = 128  # the longest T
    type_vocab_size: int = 2  # sentences that can be told apart
    hidden_dropout_prob: float = 0.1  # of the embeddings, and of what each part of a block adds
    attention_probs_dropout_prob: float = 0.1  # of attention weights
    initializer_range: float = 0.02  # standard deviation of the starting weights
    layer_norm_eps: float = 1e-12  # added to the variance, so that no norm divides by 0
    pad_token_id: int = 0  # its vector is 0, and stays so

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(item.default, int) or isinstance(item.default, bool) or item.name == "pad_token_id":
                continue
            if value < (0 if item.default == 0 else 1):
                raise UserError(f"{item.name} is {value}: it has to be at least 1")
            if value > _MOST.get(item.name, MOST_WIDTH):
                raise UserError(f"{item.name} is {value}: more than {_MOST.get(item.name, MOST_WIDTH):,} make no sense")
        for name in ("hidden_dropout_prob", "attention_probs_dropout_prob"):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}: it has to be in [0, 1)")
        if not (0 < self.layer_norm_eps < 1 and 0 <= self.initializer_range < math.inf):
            raise UserError("layer_norm_eps has to be in (0, 1), and initializer_range a number that is not negative")
        if self.hidden_size % self.num_attention_heads:
            raise UserError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}:"
                " every head gets an equal part of the hidden vector"
            )
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise UserError(f"pad_token_id {self.pad_token_id} is not in a vocabulary of {self.vocab_size}")

    @property
    def head_size(self) -> int:
        """K = D / H."""
        return self.hidden_size // self.num_attention_heads


@dataclass(frozen=True)
class ModernBertConfig(ModelConfig):
    """The shape of a ModernBERT (Warner et al. 2024, section 2.1), all of whose layers attend to the whole sequence.

    Raises:
        UserError: as for `ModelConfig`; heads are of odd size, or it is to have segments.
    """

    type_vocab_size: int = 0  # there are no segments
    bias: bool = True  # of linear layers and norms; the decoder has one in any case
    rope_theta: float = 10_000.0  # the base of the angles by which queries and keys are rotated

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.head_size % 2:
            raise UserError(
                f"heads of {self.head_size} numbers can't be rotated: rotary positions rotate pairs of them"
            )
        if not 1 <= self.rope_theta < math.inf:
            raise UserError(f"rope_theta is {self.rope_theta}: it has to be a number of at least 1")
        if self.type_vocab_size:
            raise UserError(f"type_vocab_size is {self.type_vocab_size}: a ModernBERT has no segments")


ARCHITECTURES: dict[str, type[ModelConfig]] = {"bert": ModelConfig, "modernbert": ModernBertConfig}


def option(default: Any, help: str, choices: tuple[str, ...] | None = None) -> Any:
    """A dataclass field that is a command-line flag, with its line of help."""
    return field(default=default, metadata={"help": help, "choices": choices})


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What both trainings share. Checked when it is made, so that a wrong flag costs no time.

    The defaults are the notebook's. `MLMOptions.of("strong")` has those of the other recipe.
    """

    STRONG: ClassVar[dict[str, Any]]  # what the strong recipe has instead

    recipe: str = option("notebook", "where the other options' defaults come from", choices=RECIPES)
    output: str  # each script has defaults of its own for these four
    learning_rate: float
    schedule: str
    warmup_ratio: float
    data: str = option("hub", "hub, toy, or a file or folder of parquet, jsonl, json, csv, tsv or txt")
    seed: int = option(42, "seed of every random choice")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    threads: int = option(0, "CPU threads; 0 leaves torch's own choice")
    precision: str = option("auto", "auto is bfloat16 on a GPU that has it, float32 elsewhere", choices=PRECISIONS)
    compile: bool = option(False, "compile the encoder's blocks with torch.compile before training")
    epochs: int = option(3, "passes over the training data")
    max_steps: int = option(0, "stop after this many steps, with the schedule fitted to them; 0: all epochs")
    batch_size: int = option(16, "examples in a batch; a step has so many, times --accumulate, times the processes")
    accumulate: int = option(1, "batches of each rank whose gradients are added up before a step")
    beta2: float = option(0.999, "AdamW's decay of the mean of squared gradients")
    weight_decay: float = option(0.01, "AdamW's decoupled weight decay")
    decayed: str = option(
        "all",
        "which weights are decayed: all, as in the notebook, biases and norms too, or matrices only",
        choices=DECAYED,
    )
    clip: float = option(1.0, "largest gradient norm")
    final_rate: float = option(0.0, "share of the peak learning rate that the linear schedule ends at")
    average: bool = option(False, "validate and keep the average of the weights over the last steps, not the last ones")
    log_every: int = option(100, "steps between two lines of progress")
    save_every: int = option(1_000, "steps between two checkpoints (one more at each epoch's end); 0: epochs only")
    textbook: bool = option(False, "train with the textbook's own forwards: the same losses, more slowly")
    resume: bool = option(False, "continue the unfinished run in --output from its last checkpoint")
    overwrite: bool = option(False, "replace whatever an earlier run left in --output")

    @classmethod
    def of(cls, recipe: str = "notebook", **changes: Any) -> Self:
        """The options of a recipe, with some of them changed."""
        return cls(recipe=recipe, **{**(cls.STRONG if recipe == "strong" else {}), **changes})

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            flag = "--" + item.name.replace("_", "-")
            if item.name in _AT_LEAST_ONE and not value >= 1:
                raise UserError(f"{flag} {value}: it has to be at least 1")
            if item.name in _AT_LEAST_THREE and not value >= 3:
                raise UserError(f"{flag} {value}: [CLS], one token and [SEP] need 3")
            if item.name in _AT_LEAST_ZERO and not value >= 0:  # so that NaN is refused, too
                raise UserError(f"{flag} {value}: it can't be negative")
            if item.name in _RATES and value is not None and not 0 <= value < 1:
                raise UserError(f"{flag} {value}: it has to be in [0, 1)")
        _check_seed(self.seed)
        if not (0 < self.learning_rate < math.inf and self.clip > 0):
            raise UserError("--learning-rate and --clip have to be numbers above 0")


def _check_seed(seed: int) -> None:
    if seed >= 2**64:
        raise UserError(f"--seed {seed}: it has to be below 2 ** 64, which is as far as torch's go")


_AT_LEAST_ONE = {
    "epochs", "batch_size", "accumulate", "log_every", "vocab_size", "held_out", "hidden_size", "num_hidden_layers",
    "num_attention_heads", "intermediate_size",
}  # fmt: skip
_AT_LEAST_ZERO = {
    "seed", "threads", "max_steps", "weight_decay", "save_every", "max_articles", "min_characters", "max_train",
    "max_validation", "contrast", "mixup", "projection",
}  # fmt: skip
_AT_LEAST_THREE = {"max_length"}  # [CLS], one token, [SEP]
_RATES = {"dropout", "mask_rate", "warmup_ratio", "beta2", "encoder_dropout", "hidden_tokens", "final_rate"}


@dataclass(frozen=True, kw_only=True)
class MLMOptions(TrainingOptions):
    """Options of train_mlm.py: pretraining with masked language modelling."""

    STRONG: ClassVar[dict[str, Any]] = {
        "blocks": True, "max_steps": 3_000, "architecture": "modernbert", "intermediate_size": 688,
        "neighbour_heads": True, "unigram_bias": True, "dropout": 0.0, "mask_rate": 0.3, "learning_rate": 2e-3,
        "beta2": 0.98, "decayed": "matrices",
    }  # fmt: skip

    data: str = option(
        "hub", "hub, hub-pairs (SNLI as text), toy, or a file or folder of parquet, jsonl, json, csv, tsv or txt"
    )
    output: str = option("models/bert_mlm_small", "folder for the model, its metrics and its pictures")
    vocab: str = option(
        "",
        "vocab.txt, tokenizer.json, folder or Hub name; train: learn one (default: bert-base-uncased; for toy: train)",
    )
    vocab_size: int = option(30_522, "largest vocabulary for --vocab train")
    start_from: str = option(
        "", "a pretrained model to train further, a folder or a name on the Hub; its shape and vocabulary are used"
    )
    max_articles: int = option(30_000, "articles to train on; 0: all there are")
    min_characters: int = option(200, "leave out articles of no more characters than this")
    held_out: int = option(500, "further articles, never trained on, for the reported loss")
    max_length: int = option(128, "the longest sequence of tokens, [CLS] and [SEP] included")
    blocks: bool = option(False, "train on whole articles, one after another in full blocks, not on their beginnings")
    cache: str = option("", "folder for token ids, kept for later runs (default: minibert in the user's cache folder)")
    hidden_size: int = option(256, "D, the width of every token's vector")
    num_hidden_layers: int = option(4, "L, encoder blocks")
    num_attention_heads: int = option(4, "H, heads; they divide the hidden size")
    intermediate_size: int = option(1_024, "F, the width inside the feed-forward layer")
    architecture: str = option(
        "bert", "bert, or modernbert: rotary positions, pre-norm, gated feed-forward layers", choices=(*ARCHITECTURES,)
    )
    neighbour_heads: bool = option(False, "start each head attending to a neighbour (needs --architecture modernbert)")
    unigram_bias: bool = option(False, "start the decoder's bias at the logarithms of the tokens' frequencies")
    dropout: float = option(0.1, "dropout of hidden vectors and of attention probabilities")
    mask_rate: float = option(0.15, "share of tokens to be predicted in training (in validation, always 15 in 100)")
    learning_rate: float = option(5e-4, "peak learning rate")
    schedule: str = option("linear", "how the learning rate moves after its peak", choices=SCHEDULES)
    warmup_ratio: float = option(0.06, "share of the steps in which the learning rate rises to its peak")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbour_heads and self.architecture != "modernbert":
            raise UserError("--neighbour-heads needs --architecture modernbert: heads are pointed by rotated biases")
        if self.start_from and self.vocab not in ("", self.start_from):
            raise UserError("--vocab and --start-from contradict each other: the model's own vocabulary is used")

    def model_config(self, vocab_size: int, pad_token_id: int) -> ModelConfig:
        """The model these options ask for, over a vocabulary of `vocab_size`."""
        return ARCHITECTURES[self.architecture](
            vocab_size=vocab_size,
            hidden_size=self.hidden_size,
            num_hidden_layers=self.num_hidden_layers,
            num_attention_heads=self.num_attention_heads,
            intermediate_size=self.intermediate_size,
            max_position_embeddings=self.max_length,
            hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout,
            pad_token_id=pad_token_id,
        )


@dataclass(frozen=True, kw_only=True)
class NLIOptions(TrainingOptions):
    """Options of train_nli.py: the Siamese classifier on top of a pretrained encoder."""

    STRONG: ClassVar[dict[str, Any]] = {
        "max_length": 64, "batch_size": 64, "pooling": "max", "projection": 2_048, "product": True, "dropout": 0.3,
        "hidden_tokens": 0.15, "contrast": 1.0, "mixup": 0.4, "group_by_length": True, "calibrate": True,
        "learning_rate": 8e-4, "schedule": "linear", "warmup_ratio": 0.06, "final_rate": 0.25, "average": True,
        "weight_decay": 0.5, "decayed": "matrices",
    }  # fmt: skip

    encoder: str = option("models/bert_mlm_small", "the pretrained encoder: a folder, or any BERT's name on the Hub")
    output: str = option("models/sbert_nli_small", "folder for the classifier, its metrics and its pictures")
    max_train: int = option(30_000, "training pairs, sampled as in the notebook; 0: all")
    max_validation: int = option(3_000, "validation pairs, sampled likewise; 0: all")
    max_length: int = option(16, "tokens kept of each sentence, [CLS] and [SEP] included")
    pooling: str = option("mean", "how a sentence's token vectors become one", choices=POOLINGS)
    projection: int = option(
        0, "dimensions that token vectors are projected to before they become one; 0: no projection"
    )
    product: bool = option(False, "u * v as a fourth feature beside u, v and |u - v|")
    dropout: float = option(0.1, "dropout of the features that the classifier sees")
    encoder_dropout: float | None = option(None, "dropout within the encoder (default: as it was pretrained)")
    hidden_tokens: float = option(0.0, "share of tokens that training replaces by [MASK], drawn anew in each epoch")
    contrast: float = option(0.0, "weight of a second loss: entailed pairs are to find each other in their batch")
    mixup: float = option(
        0.0, "half of the loss on mixtures of two pairs, with shares from Beta(it, it); 0: no mixtures"
    )
    group_by_length: bool = option(False, "batches of pairs of like length, for less padding and so less time")
    calibrate: bool = option(False, "fit the probabilities' temperature on the validation pairs at the end")
    learning_rate: float = option(2e-5, "peak learning rate")
    schedule: str = option("constant", "how the learning rate moves after its peak", choices=SCHEDULES)
    warmup_ratio: float = option(0.0, "share of the steps in which the learning rate rises to its peak")
    hypothesis_only: bool = option(False, "the control: empty the premise, all else equal")
    zip: bool = option(False, "also write OUTPUT.zip")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixup == math.inf:
            raise UserError("--mixup inf: it has to be a number; 0.4 is usual")
        if self.projection > MOST_WIDTH:
            raise UserError(f"--projection {self.projection}: more than {MOST_WIDTH:,} make no sense")


@dataclass(frozen=True, kw_only=True)
class AnswersOptions:
    """A trained classifier, and the labelled pairs that it is to answer."""

    model: str = option("models/sbert_nli_small", "folder or zip written by train_nli.py")
    data: str = option("hub", "hub, toy, or a file or folder of parquet, jsonl, json, csv or tsv")
    split: str = option("test", "which part of the data", choices=("train", "validation", "test"))
    max_pairs: int = option(6_000, "pairs, sampled as in the notebook; 0: all")
    seed: int = option(42, "seed of the sample")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")

    def __post_init__(self) -> None:
        if self.max_pairs < 0 or self.seed < 0:
            raise UserError("--max-pairs and --seed can't be negative")
        _check_seed(self.seed)


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(AnswersOptions):
    """Options of evaluate.py: the report on a trained classifier, or its answer for one pair."""

    batch_size: int = option(64, "sentences in a pass through the encoder; does not change the results")
    json: str = option("", "also write every figure to this file")
    figure: str = option("", "where the confusion matrix is drawn (default: beside the model)")
    premise: str | None = option(None, "with --hypothesis: print the probabilities for this one pair instead")
    hypothesis: str | None = option(None, "see --premise")

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.premise is None) != (self.hypothesis is None):
            raise UserError("--premise and --hypothesis go together: give both, or neither")
        if self.batch_size < 1:
            raise UserError(f"--batch-size {self.batch_size}: it has to be at least 1")
