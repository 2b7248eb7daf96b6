"""The options of the three scripts: a dataclass each.

Each field is a flag (`max_length` is `--max-length`): it has a default, a group and a text in `--help`, and bounds.
They are checked when the options are made, so that a wrong flag costs no time. Where the course notebook has a setting,
its value is the default; `--recipe strong` sets others (docs/recipe.md).

This file imports nothing heavy: `--help` has to answer before torch has loaded.

Source of the defaults: the notebook "Assignment 4: Do you AGREE?".
"""

from __future__ import annotations

import math
import re
import shlex
from dataclasses import dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Self

from minibert.config import ARCHITECTURES, LABELS, MOST_WIDTH, ModelConfig, checked_labels, label_key
from minibert.errors import UserError, command

RECIPES = ("notebook", "strong")
SCHEDULES = ("constant", "linear")  # minibert.optimizer
POOLINGS = ("mean", "cls", "max")  # minibert.sbert
DECAYED = ("all", "matrices")  # minibert.optimizer
PRECISIONS = ("auto", "float32", "bfloat16")  # minibert.device
SPLITS = ("train", "validation", "test")
LEAST_MIXUP = 0.01  # torch draws shares near 0 and 1 wrongly from a Beta that has hardly any others
ENTAILED = "entailment"  # the label whose pairs --contrast brings together

SIZES = ("num_hidden_layers", "hidden_size", "num_attention_heads", "intermediate_size")  # of a new model
NO_PATHS = {"data": ("hub", "toy"), "vocab": ("train",)}  # what these options take besides paths
OPTIONS, METRICS = "options.json", "metrics.jsonl"  # where a run's folder has its options and its measurements

GROUPS = ("most used", "data", "model", "training", "run")  # of `--help`, in this order

DATA = "hub, toy, a Hub data set (owner/name, owner/name:configuration), or a path (parquet, jsonl, csv, tsv, txt ...)"
DEVICE = "auto, cpu, cuda, cuda:N or mps"


def option(
    default: Any, group: str, help: str, *, choices: tuple[str, ...] | None = None, at_least: float = -math.inf,
    above: float = -math.inf, below: float = math.inf, else_say: str = "",
) -> Any:  # fmt: skip
    """A field of options: its default, where `--help` has it and what it says there, which values are allowed, and the
    error for others.
    """
    bounds = {"at_least": at_least, "above": above, "below": below, "else_say": else_say}
    return field(default=default, metadata={"group": group, "help": help, "choices": choices, **bounds})


count = partial(option, at_least=1, else_say="it has to be at least 1")
limit = partial(option, at_least=0, else_say="it has to be 0 or more")
positive = partial(option, above=0, else_say="it has to be a number above 0")
rate = partial(option, at_least=0, below=1, else_say="it has to be in [0, 1)")
sequence_length = partial(option, at_least=3, else_say="[CLS], one token and [SEP] need 3")
seed = partial(option, 42, "run", at_least=0, below=2**64, else_say="it has to be from 0 to 2 ** 64 - 1")


def columns(optional: str) -> Any:
    """Names of columns, separated by commas."""
    return option(
        "", "data",
        f"the data's columns: two sentences{optional}, as in question1,question2,is_duplicate (default: premise,"
        "hypothesis,label, or sentence1,sentence2 with gold_label or label)",
    )  # fmt: skip


def listed(text: str) -> tuple[str, ...]:
    """Names separated by commas; "" has none."""
    return tuple(name.strip() for name in text.split(",")) if text else ()


def flag(name: str) -> str:
    """The flag of a field."""
    return "--" + name.replace("_", "-")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What all options share: their values are checked when they are made."""

    def __post_init__(self) -> None:
        for item in fields(self):
            value, spec = getattr(self, item.name), item.metadata
            if value == "" and item.default:
                raise UserError(f"{flag(item.name)} is empty: leave it out, or give it a value")
            if spec["choices"] and value not in spec["choices"]:
                raise UserError(f"{flag(item.name)} {value}: choose from {', '.join(spec['choices'])}")
            is_number = not isinstance(value, str | bool | None)
            if is_number and not (value >= spec["at_least"] and spec["above"] < value < spec["below"]):  # refuses NaN
                raise UserError(f"{flag(item.name)} {value}: {spec['else_say']}")


@dataclass(frozen=True, kw_only=True)
class TrainingOptions(Options):
    """What both trainings share. `MLMOptions.of("strong")` has the strong recipe's defaults."""

    SCRIPT: ClassVar[str]  # the script that has these options
    STRONG: ClassVar[dict[str, Any]]  # the defaults that differ in the strong recipe

    data: str  # each script has defaults or words of its own for these six
    output: str
    learning_rate: float
    schedule: str
    warmup_ratio: float
    max_length: int
    recipe: str = option("notebook", "most used", "where the other options' defaults come from", choices=RECIPES)
    epochs: int = count(3, "most used", "passes over the training data")
    batch_size: int = count(16, "most used", "examples in a batch; a step has this many x --accumulate x processes")
    resume: bool = option(
        False, "most used", "continue the unfinished run in --output, with its own options, from its last checkpoint"
    )
    overwrite: bool = option(False, "most used", "replace whatever an earlier run left in --output")
    mine: str = option("", "model", "a folder of layers that you wrote (docs/exercises.md); they are checked first")
    max_steps: int = limit(0, "training", "stop after this many steps, with the schedule fitted to them; 0: all epochs")
    accumulate: int = count(1, "training", "batches of each rank whose gradients are added up before a step")
    clip: float = positive(1.0, "training", "largest gradient norm")
    weight_decay: float = limit(0.01, "training", "AdamW's decoupled weight decay")
    decayed: str = option("all", "training", "decay all weights, as in the notebook, or matrices only", choices=DECAYED)
    beta2: float = rate(0.999, "training", "AdamW's decay of the mean of squared gradients")
    textbook: bool = option(False, "training", "train with the textbook's forward passes: the same losses, more slowly")
    seed: int = seed("seed of every random choice")
    device: str = option("auto", "run", DEVICE)
    threads: int = limit(
        0, "run", "CPU threads; 0 leaves torch's own choice", below=1_025, else_say="it has to be from 0 to 1,024"
    )
    precision: str = option("auto", "run", "auto: bfloat16 on a GPU that has it, else float32", choices=PRECISIONS)
    compile: bool = option(False, "run", "compile the encoder's blocks with torch.compile before training")
    log_every: int = limit(0, "run", "steps between lines of progress; 0: 100, in a short run fewer, for twenty lines")
    save_every: int = limit(1_000, "run", "steps between checkpoints (one more at each epoch's end); 0: epochs only")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.compile and self.textbook:
            raise UserError("--compile is for the fast path: leave out --textbook")

    @classmethod
    def of(cls, recipe: str = "", **changes: Any) -> Self:
        """The options of a recipe, or of the run to be resumed, with some of them changed.

        Raises:
            UserError: a value makes no sense, or that run's options are damaged.
        """
        kept = _options_of_run(cls, changes.get("output")) if changes.get("resume") else {}
        if not kept or recipe not in ("", kept["recipe"]):
            kept = {"recipe": recipe or "notebook", **(cls.STRONG if recipe == "strong" else {})}
        return cls(**{**kept, **changes})

    def check_length(self, positions: int, what: str) -> None:
        """Refuse a --max-length above a model's number of positions."""
        if self.max_length > positions:
            raise UserError(f"--max-length {self.max_length}: {what} has {positions} positions")

    def continued_by(self, ranks: int = 1) -> str:
        """The command that goes on with the run, on as many processes as before."""
        line = _started(self.SCRIPT, "--output", self.output, "--resume")
        return line if ranks == 1 else f"torchrun ... {shlex.join(shlex.split(line)[1:])}"

    def followed_by(self) -> str:
        """The command that comes after the run."""
        raise NotImplementedError


def _started(script: str, *words: str) -> str:
    """The command that starts a script, with its path if this is a clone."""
    file = Path(__file__).parents[1] / script
    return command(file if file.is_file() else script, *words)


def _options_of_run(kind: type[TrainingOptions], output: str | None) -> dict[str, Any]:
    """The options in an output folder's options.json; none if the other script, or another version, wrote it.

    (The checkpoint is then refused for what it says itself.)
    """
    from minibert.files import read_json  # only here: `--help` does not need it

    defaults: dict[str, Any] = {item.name: item.default for item in fields(kind)}
    file = Path(output or defaults["output"]) / OPTIONS
    values = read_json(file, None)
    if values.keys() != defaults.keys():
        return {}
    for name, value in values.items():
        if type(value) not in (type(defaults[name]), int if isinstance(defaults[name], float) else None):
            raise UserError(f"{file} is damaged ({name} is {value!r}): --overwrite starts anew")
    return {**values, "overwrite": False}


@dataclass(frozen=True, kw_only=True)
class MLMOptions(TrainingOptions):
    """Options of train_mlm.py: pretraining with masked language modelling."""

    SCRIPT = "train_mlm.py"
    STRONG: ClassVar[dict[str, Any]] = {
        "blocks": True, "max_steps": 3_000, "architecture": "modernbert", "intermediate_size": 688,
        "neighbour_heads": True, "unigram_bias": True, "dropout": 0.0, "mask_rate": 0.3, "learning_rate": 2e-3,
        "beta2": 0.98, "decayed": "matrices",
    }  # fmt: skip

    data: str = option("hub", "most used", DATA)
    vocab: str = option(
        "", "most used",
        "vocab.txt, tokenizer.json, folder or Hub name; train: learn one (default: bert-base-uncased; for toy: train)",
    )  # fmt: skip
    output: str = option("models/bert_mlm_small", "most used", "folder for the model, its metrics and its pictures")
    learning_rate: float = positive(5e-4, "most used", "peak learning rate")
    line_by_line: bool = option(
        False, "data", "take each line of a .txt for an article (else empty lines separate them)"
    )
    min_characters: int = limit(200, "data", "leave out articles of at most this many characters")
    max_articles: int = limit(30_000, "data", "articles to train on; 0: all there are")
    held_out: int = count(500, "data", "further articles, never trained on, for the reported loss")
    max_length: int = sequence_length(128, "data", "the longest sequence of tokens, [CLS] and [SEP] included")
    blocks: bool = option(False, "data", "train on whole articles, in full blocks, not on their beginnings")
    vocab_size: int = count(30_522, "data", "largest vocabulary for --vocab train")
    lowercase: bool = option(
        True, "data", "--vocab train drops case and accents; in many scripts, like Hindi's, accents are vowels"
    )
    cache: str = option("", "data", "folder for token ids, kept for later runs (default: in the user's cache folder)")
    start_from: str = option("", "model", "folder or Hub name of a model to train further, in its shape and vocabulary")
    architecture: str = option(
        "bert", "model", "bert, or modernbert: rotary positions, pre-norm, gated feed-forward layers",
        choices=(*ARCHITECTURES,),
    )  # fmt: skip
    num_hidden_layers: int = count(4, "model", "L, encoder blocks")
    hidden_size: int = count(256, "model", "D, the width of every token's vector")
    num_attention_heads: int = count(4, "model", "H, heads; they divide the hidden size")
    intermediate_size: int = count(1_024, "model", "F, the width inside the feed-forward layer")
    neighbour_heads: bool = option(
        False, "model", "start heads attending to neighbours (needs --architecture modernbert)"
    )
    unigram_bias: bool = option(False, "model", "start the decoder's bias at the logarithms of the tokens' frequencies")
    dropout: float = rate(0.1, "model", "dropout of hidden vectors and of attention weights")
    schedule: str = option("linear", "training", "how the learning rate moves after its peak", choices=SCHEDULES)
    warmup_ratio: float = rate(0.06, "training", "share of the steps in which the learning rate rises to its peak")
    mask_rate: float = option(
        0.15, "training", "share of tokens to predict in training (in validation, always 0.15)",
        above=0, below=1, else_say="it has to be in (0, 1)",
    )  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.neighbour_heads and self.architecture != "modernbert":
            raise UserError("--neighbour-heads needs --architecture modernbert: heads are pointed by rotated biases")
        if self.start_from and self.vocab not in ("", self.start_from):
            raise UserError("--vocab and --start-from contradict each other: the model's own vocabulary is used")

    def followed_by(self) -> str:
        """Fine-tuning of the model that this run has made."""
        return _started("train_nli.py", "--encoder", self.output, *(["--data", "toy"] if self.data == "toy" else []))

    def model_config(self, vocab_size: int, pad_token_id: int) -> ModelConfig:
        """The model these options ask for, over a vocabulary of `vocab_size`."""
        return ARCHITECTURES[self.architecture](
            vocab_size=vocab_size, **{name: getattr(self, name) for name in SIZES},
            max_position_embeddings=self.max_length, hidden_dropout_prob=self.dropout,
            attention_probs_dropout_prob=self.dropout, pad_token_id=pad_token_id,
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class NLIOptions(TrainingOptions):
    """Options of train_nli.py: the Siamese classifier on top of a pretrained encoder."""

    SCRIPT = "train_nli.py"
    STRONG: ClassVar[dict[str, Any]] = {
        "max_length": 64, "batch_size": 64, "pooling": "max", "projection": 2_048, "dropout": 0.0,
        "contrast": 1.0, "mixup": 0.4, "group_by_length": True, "calibrate": True, "learning_rate": 8e-4,
        "schedule": "linear", "warmup_ratio": 0.06, "weight_decay": 0.5,
        "decayed": "matrices",
    }  # fmt: skip

    data: str = option("hub", "most used", DATA)
    encoder: str = option("models/bert_mlm_small", "most used", "the pretrained encoder: a folder or a BERT on the Hub")
    output: str = option("models/sbert_nli_small", "most used", "folder for the classifier, its metrics and pictures")
    learning_rate: float = positive(2e-5, "most used", "peak learning rate")
    columns: str = columns(" and a label")
    labels: str = option(
        "", "data",
        "names of the labels, in the order of the numbers 0, 1 ... if the data has these, like different,duplicate"
        " (default: entailment,neutral,contradiction)",
    )  # fmt: skip
    max_train: int = limit(30_000, "data", "training pairs, sampled as in the notebook; 0: all")
    max_validation: int = limit(3_000, "data", "validation pairs, sampled in the same way; 0: all")
    validation_share: float = rate(0.0, "data", "share of the training pairs to validate on; 0: the validation split")
    max_length: int = sequence_length(16, "data", "tokens kept of each sentence, [CLS] and [SEP] included")
    hypothesis_only: bool = option(False, "data", "the control: empty the premise, all else equal")
    pooling: str = option("mean", "model", "how a sentence's token vectors become one", choices=POOLINGS)
    projection: int = limit(
        0, "model", "dimensions that token vectors are projected to before they become one; 0: no projection",
        below=MOST_WIDTH + 1, else_say=f"it has to be from 0 to {MOST_WIDTH:,}",
    )  # fmt: skip
    dropout: float = rate(0.1, "model", "dropout of the features that the classifier sees")
    schedule: str = option("constant", "training", "how the learning rate moves after its peak", choices=SCHEDULES)
    warmup_ratio: float = rate(0.0, "training", "share of the steps in which the learning rate rises to its peak")
    contrast: float = limit(0.0, "training", "weight of a second loss: entailed pairs find each other in their batch")
    mixup: float = limit(
        0.0, "training", "half of the loss on mixtures of pairs, shares from Beta(mixup, mixup); 0: none",
        below=1_001, else_say="it has to be from 0 to 1,000, where all shares are a half",
    )  # fmt: skip
    debias: str = option(
        "", "training",
        "folder of a control: its log-probabilities are added to the logits in training, so that"
        " what is left to learn needs the premise",
    )  # fmt: skip
    debias_weight: float = limit(0.15, "training", "what the log-probabilities of --debias are multiplied by")
    group_by_length: bool = option(False, "training", "batches of pairs of similar length: less padding, so less time")
    calibrate: bool = option(False, "training", "fit the probabilities' temperature on the validation pairs at the end")
    zip: bool = option(False, "run", "also write OUTPUT.zip")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_columns(self.columns, (3,))
        if self.labels:
            checked_labels(listed(self.labels), "--labels")
        if self.contrast and self.entailed < 0:
            raise UserError(
                f"--contrast {self.contrast} brings the sentences of pairs labelled {ENTAILED} together, and --labels"
                f" has no {ENTAILED}: give --contrast 0, or this name to the label of pairs that belong together"
            )
        if 0 < self.mixup < LEAST_MIXUP:
            raise UserError(f"--mixup {self.mixup:g}: it has to be 0, or from {LEAST_MIXUP} to 1,000")
        if self.debias and self.hypothesis_only:
            raise UserError(f"--debias {self.debias}: a control learns what hypotheses tell, and nothing else")
        if self.debias_weight != NLIOptions.debias_weight and not self.debias:
            raise UserError(f"--debias-weight {self.debias_weight:g} needs --debias")

    def followed_by(self) -> str:
        """The report on the classifier, or its answer for a pair, if --validation-share has left no test split."""
        if self.validation_share:
            arguments = ["--premise", "A man is asleep.", "--hypothesis", "Nobody is awake."]
        else:
            arguments = [] if self.data == "hub" else ["--data", self.data]
            arguments += ["--columns", self.columns] if self.columns else []
        return _started("evaluate.py", "--model", self.output, *arguments)

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels of the pairs, in their order."""
        return listed(self.labels) or LABELS

    @property
    def entailed(self) -> int:
        """The index of the label entailment, -1 if there is none."""
        keys = [label_key(name) for name in self.label_names]
        return keys.index(ENTAILED) if ENTAILED in keys else -1


# The options that evaluate.py uses when it is asked for something other than the report.
USED = {
    "--premise": ("--model", "--device", "--premise", "--hypothesis"),
    "--similarity": ("--model", "--device", "--similarity", "--split", "--columns", "--batch-size", "--json"),
}


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(Options):
    """Options of evaluate.py: the report on a trained classifier, its answer for one pair, or how well the cosines of
    any encoder's vectors agree with people.
    """

    model: str = option(
        "models/sbert_nli_small", "most used",
        "folder, zip or Hub name of a model: one with a classifier, or for --similarity any encoder",
    )  # fmt: skip
    data: str = option("hub", "most used", DATA)
    split: str = option("test", "most used", "which part of the data", choices=SPLITS)
    batch_size: int = count(64, "most used", "sentences in a pass through the encoder; does not change the results")
    premise: str | None = option(None, "most used", "with --hypothesis: print the probabilities of this pair instead")
    hypothesis: str | None = option(None, "most used", "see --premise")
    columns: str = columns(", and a label if there is one")
    max_pairs: int = limit(6_000, "data", "pairs, sampled as in the notebook; 0: all")
    similarity: str = option(
        "", "data", "instead, pairs with scores (sentence1, sentence2, score): how well cosines agree with them"
    )
    seed: int = seed("seed of the sample")
    device: str = option("auto", "run", DEVICE)
    predictions: str = option(
        "", "run", "also write every pair, labelled or not, with its answer and all probabilities to this CSV file"
    )
    json: str = option("", "run", "also write every figure to this file")
    figure: str = option("", "run", "where confusion matrix and calibration are drawn (default: beside the model)")

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_columns(self.columns, (2, 3) if self.predictions else (3,))
        if (self.premise is None) != (self.hypothesis is None):
            raise UserError("--premise and --hypothesis go together: give both, or neither")
        instead = "--premise" if self.premise is not None else "--similarity" if self.similarity else ""
        if instead:
            given = (flag(item.name) for item in fields(self) if getattr(self, item.name) != item.default)
            if needless := [name for name in given if name not in USED[instead]]:
                raise UserError(f"{needless[0]} is for the report on a classifier: {instead} asks for something else")
        if self.predictions and not self.predictions.lower().endswith(".csv"):
            raise UserError(f"--predictions {self.predictions}: it takes the name of a .csv file to write")
        if self.predictions and any(re.match("prediction$|probability_", name) for name in listed(self.columns)):
            raise UserError(
                f"--columns {self.columns}: --predictions itself has columns prediction and probability_..."
            )
        if self.predictions and self.max_pairs not in (0, EvaluateOptions.max_pairs):
            raise UserError("--predictions has every pair: --max-pairs is for a report without it")


def _check_columns(text: str, sizes: tuple[int, ...]) -> None:
    names = listed(text)
    if names and (len(names) not in sizes or not all(names) or len(set(names)) < len(names)):
        wanted = " or ".join(map(str, sizes)) + " different names, as in question1,question2,is_duplicate"
        raise UserError(f"--columns {text}: it takes {wanted} (evaluate.py --predictions needs no label)")


SCRIPTS: dict[str, type[Options]] = {
    "train_mlm.py": MLMOptions, "train_nli.py": NLIOptions, "evaluate.py": EvaluateOptions
}  # fmt: skip
