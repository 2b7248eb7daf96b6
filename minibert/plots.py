"""Draw one picture of a run or of a model.

    training     loss, accuracy and learning rate over a run's steps
    confusion    which labels a classifier takes for which
    reliability  how often it is right when it is so sure
    attention    what every head attends to in a sentence
    embeddings   sentences' vectors in two dimensions, by topic

Example:
    python -m minibert.plots attention --model models/sbert_nli_small --text "A man is playing a guitar."

Each has its own flags: python -m minibert.plots attention --help
"""

# A picture is a dataclass of options, whose `draw` asks the model; minibert.drawing makes a figure of the numbers. Only
# then are torch and matplotlib imported: --help needs neither.

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from minibert.cli import parse_options, run
from minibert.config import LABELS
from minibert.drawing import (
    draw_attention,
    draw_confusion,
    draw_embeddings,
    draw_reliability,
    draw_training,
    need_matplotlib,
    optional,
    picture_format,
    save,
)
from minibert.errors import UserError
from minibert.files import read_records
from minibert.options import AnswersOptions, listed, option

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from minibert.inference import Predictions, TrainedModel


# What a training and evaluate.py draw by the way.


def plot_training(folder: Path, path: Path | None = None) -> None:
    """Draw a run's metrics.jsonl, if there is matplotlib, to a path or training.png in the folder."""
    with optional():
        save(draw_training(read_records(folder / "metrics.jsonl")), path or folder / "training.png")


def plot_confusion(matrix: Sequence[Sequence[int]], path: Path, labels: Sequence[str] = LABELS) -> None:
    """Draw a confusion matrix, if there is matplotlib."""
    with optional():
        save(draw_confusion(matrix, labels), path)


# The command's pictures: their options, and where their numbers come from.


@dataclass(frozen=True, kw_only=True)
class TrainingPicture:
    """Loss, accuracy and learning rate over a run's steps."""

    run: str = option("models/bert_mlm_small", "folder of a run of train_mlm.py or train_nli.py")
    output: str = option("", "where the picture goes (default: training.png in that folder)")

    def draw(self) -> None:
        """Raises UserError: the folder has no metrics.jsonl, or the file is damaged."""
        metrics = Path(self.run) / "metrics.jsonl"
        if not metrics.is_file():
            raise UserError(f"there is no {metrics}: --run is a folder that train_mlm.py or train_nli.py has written")
        try:
            figure = draw_training(read_records(metrics))
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{metrics} is damaged: {error}") from error
        save(figure, Path(self.output or metrics.with_name("training.png")))


@dataclass(frozen=True, kw_only=True)
class ConfusionPicture(AnswersOptions):
    """Which labels a classifier takes for which; the options are those of evaluate.py."""

    output: str = option("confusion_matrix.png", "where the picture goes")

    def draw(self) -> None:
        """Errors as in evaluate.py."""
        from minibert.metrics import figures

        result = figures(*_answers(self))
        save(draw_confusion(result["confusion_matrix"], result["labels"]), Path(self.output))


@dataclass(frozen=True, kw_only=True)
class ReliabilityPicture(AnswersOptions):
    """How often a classifier is right that says it is so sure; the options are those of evaluate.py."""

    output: str = option("reliability.png", "where the picture goes")

    def draw(self) -> None:
        """Errors as in evaluate.py."""
        from minibert.metrics import reliability

        labels, predictions = _answers(self)
        save(draw_reliability(reliability(labels, predictions.probabilities)), Path(self.output))


@dataclass(frozen=True, kw_only=True)
class AttentionPicture:
    """What every head attends to in a sentence, with the tokens on both axes."""

    model: str = option("models/sbert_nli_small", "folder, zip or name of a model")
    text: str = option("A man is playing a guitar on stage.", "the sentence")
    layer: int = option(0, "which layer, from 1; 0: all of them, a row each")
    output: str = option("attention.png", "where the picture goes")

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise UserError(f"--layer {self.layer}: layers are counted from 1, and 0 is all of them")

    def draw(self) -> None:
        """Raises UserError: the model can't be read or does not have this layer, or the text is empty."""
        from minibert.hub import from_pretrained

        model = from_pretrained(self.model)
        for note in read(model, self.text, "--text")[1]:
            print(note)
        tokens, maps = model.attention(self.text)
        if self.layer > len(maps):
            raise UserError(f"--layer {self.layer}: {self.model} has {len(maps)}")
        save(draw_attention(tokens, maps, [self.layer - 1] if self.layer else ()), Path(self.output))


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

    def draw(self) -> None:
        """Raises UserError: the device, the model or the sentences can't be had, or have all the same vector."""
        from minibert.device import pick_device
        from minibert.hub import from_pretrained

        topics, sentences = load_topics(self.data, self.max_sentences)
        vectors = from_pretrained(self.model).to(pick_device(self.device)).encode(sentences)
        if len(vectors) < 2 or (vectors == vectors[0]).all():
            raise UserError(f"{self.data}: a picture needs at least two sentences with vectors that differ")
        save(draw_embeddings(vectors, topics), Path(self.output))


PICTURES: dict[str, type[Any]] = {
    "training": TrainingPicture,
    "confusion": ConfusionPicture,
    "reliability": ReliabilityPicture,
    "attention": AttentionPicture,
    "embeddings": EmbeddingsPicture,
}


def _answers(options: AnswersOptions) -> tuple[NDArray[np.int64], Predictions]:
    """The true labels of some pairs, and what the classifier says of them."""
    from minibert.data.pairs import Reading, load_pairs
    from minibert.device import pick_device
    from minibert.hub import load_classifier

    model = load_classifier(options.model).to(pick_device(options.device))
    reading = Reading(listed(options.columns), model.labels, options.model)
    pairs = load_pairs(options.data, options.split, max_pairs=options.max_pairs, seed=options.seed, reading=reading)
    return pairs.labels, model.predict(pairs.premises, pairs.hypotheses)


def read(model: TrainedModel, text: str, name: str) -> tuple[list[str], list[str]]:
    """The tokens that a model reads of a text, and what one should know of them, a sentence each.

    Args:
        model: the model.
        text: the text.
        name: what to call it.
    Raises:
        UserError: the text has nothing in it that could be read.
    """
    from minibert.tokenizer import UNK

    ids = model.tokenizer.encode([text], max_length=model.max_length + 1)[0]  # one more than is read: is there more?
    if len(ids) == 2:  # [CLS] and [SEP]
        raise UserError(f"{name} is empty: write a sentence there")
    tokens, notes = model.tokenizer.tokens(model.tokenizer.encode([text], max_length=model.max_length)[0]), []
    if len(ids) > model.max_length:
        notes.append(f"{name} has more than the {model.max_length} tokens that are read; the rest is left out.")
    if UNK in tokens:
        notes.append(f"{UNK} in {name} stands for something that the vocabulary can't spell.")
    return tokens, [note[0].upper() + note[1:] for note in notes]


def load_topics(data: str, max_sentences: int) -> tuple[list[str], list[str]]:
    """The topics and the texts of a source's first sentences.

    Args:
        data: "toy", whose topics are the slots of its scenes, or the path of a text file with a line
            `topic<TAB>sentence` each; empty lines are passed over.
        max_sentences: how many at most.
    Raises:
        UserError: the file can't be read, or a line has no tab, or nothing on one side of it.
    """
    from minibert.toy import toy_sentences

    topical = toy_sentences(max_sentences) if data == "toy" else _topics_file(Path(data))[:max_sentences]
    return [topic for topic, _ in topical], [sentence for _, sentence in topical]


def _topics_file(path: Path) -> list[tuple[str, str]]:
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not text in UTF-8: {error}") from error
    except OSError as error:
        raise UserError(
            f"{path} can't be read: {error.strerror}; --data is toy, or a file of topics and sentences"
        ) from error
    topical = []
    for number, line in enumerate(lines, start=1):
        topic, _, sentence = (part.strip() for part in line.lstrip("\ufeff").partition("\t"))  # files joined have more
        if topic and sentence:
            topical.append((topic, sentence))
        elif line.replace("\ufeff", "").strip():
            raise UserError(f"{path}, line {number}: a line has to be a topic, a tab and a sentence")
    return topical


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the picture's name, then its options, then draw it.

    Raises:
        UserError: matplotlib is not installed, or what a picture's `draw` says.
    """
    program = "python -m minibert.plots"
    parser = argparse.ArgumentParser(
        program, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("picture", choices=PICTURES, metavar="PICTURE")
    parser.add_argument("flags", nargs=argparse.REMAINDER, help="that picture's own")
    given = parser.parse_args(arguments)
    kind = PICTURES[given.picture]
    picture = parse_options(kind, given.flags, str(kind.__doc__), program=f"{program} {given.picture}")
    need_matplotlib()
    if picture.output or kind is not TrainingPicture:
        picture_format(Path(picture.output))
    picture.draw()


if __name__ == "__main__":
    run(main)
