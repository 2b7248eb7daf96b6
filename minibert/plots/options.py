"""The options of each picture's command, `python -m minibert.plots PICTURE`."""

from __future__ import annotations

from dataclasses import dataclass

from minibert.config import AnswersOptions, option
from minibert.errors import UserError


@dataclass(frozen=True, kw_only=True)
class TrainingPicture:
    """Loss, accuracy and learning rate over a run's steps."""

    run: str = option("models/bert_mlm_small", "folder of a run of train_mlm.py or train_nli.py")
    output: str = option("", "where the picture goes (default: training.png in that folder)")


@dataclass(frozen=True, kw_only=True)
class AttentionPicture:
    """What every head looks at in a sentence, with the tokens on both axes."""

    model: str = option("models/sbert_nli_small", "folder, zip or name of a model")
    text: str = option("A man is playing a guitar on stage.", "the sentence")
    layer: int = option(0, "which layer, from 1; 0: all of them, a row each")
    output: str = option("attention.png", "where the picture goes")

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise UserError("--text is empty: give it a sentence")
        if self.layer < 0:
            raise UserError(f"--layer {self.layer}: layers are counted from 1, and 0 is all of them")


@dataclass(frozen=True, kw_only=True)
class EmbeddingsPicture:
    """Sentences' vectors in two dimensions, their principal components, coloured and shaped by topic."""

    model: str = option("models/sbert_nli_small", "folder, zip or name of a model")
    data: str = option("toy", "toy, or a text file with a line `topic<TAB>sentence` each")
    max_sentences: int = option(300, "how many sentences at most, from the first on")
    device: str = option("auto", "auto, cpu, cuda, cuda:N or mps")
    output: str = option("embeddings.png", "where the picture goes")

    def __post_init__(self) -> None:
        if self.max_sentences < 2:
            raise UserError(f"--max-sentences {self.max_sentences}: it has to be at least 2")


@dataclass(frozen=True, kw_only=True)
class ConfusionPicture(AnswersOptions):
    """Which labels a classifier takes for which; the options are those of evaluate.py."""

    output: str = option("confusion_matrix.png", "where the picture goes")


@dataclass(frozen=True, kw_only=True)
class ReliabilityPicture(AnswersOptions):
    """How often a classifier is right that says it is so sure; the options are those of evaluate.py."""

    output: str = option("reliability.png", "where the picture goes")
