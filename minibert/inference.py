"""Using a trained model: sentences in, probabilities and vectors out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from minibert.data.batching import pad
from minibert.data.tokenizer import WordPieceTokenizer
from minibert.model.siamese import SiameseClassifier


@dataclass(frozen=True)
class NLIModel:
    """A classifier with all that is needed to use it: what a folder of train_nli.py holds.

    Attributes:
        classifier: the network.
        tokenizer: its vocabulary.
        max_length: tokens kept of each sentence, in training and so in use.
        hypothesis_only: the control: it was trained on emptied premises, and is evaluated on them.
    """

    classifier: SiameseClassifier
    tokenizer: WordPieceTokenizer
    max_length: int
    hypothesis_only: bool = False

    def pair_inputs(self, premises: Sequence[str], hypotheses: Sequence[str]) -> tuple[Tensor, Tensor]:
        """(2B, T) ids and mask: the premises, then the hypotheses."""
        if self.hypothesis_only:
            premises = [""] * len(premises)
        ids = self.tokenizer.encode([*premises, *hypotheses], self.max_length)
        return pad(ids, self.tokenizer.pad_id)


@dataclass(frozen=True)
class Predictions:
    """What a model says of pairs.

    Attributes:
        probabilities: (pairs, 3) in the order of `LABELS`.
        embeddings: (2 * pairs, D), the premises' vectors and then the hypotheses'.
    """

    probabilities: NDArray[np.float32]
    embeddings: NDArray[np.float32]

    @property
    def labels(self) -> NDArray[np.int64]:
        """(pairs,) the likeliest label of each."""
        return self.probabilities.argmax(axis=1).astype(np.int64)


def predict(model: NLIModel, premises: Sequence[str], hypotheses: Sequence[str], batch_size: int = 64) -> Predictions:
    """Classify pairs; the batch size does not change the answers.

    The model is put into evaluation mode for the purpose and back into the mode it was in.

    Raises:
        ValueError: the lists differ in length, or are empty.
    """
    if len(premises) != len(hypotheses) or not premises:
        raise ValueError(f"{len(premises)} premises and {len(hypotheses)} hypotheses: need as many, and at least one")
    network = model.classifier
    device = next(network.parameters()).device
    was_training = network.training
    network.eval()
    probabilities, sides = [], []
    with torch.no_grad():
        for start in range(0, len(premises), batch_size):
            rows = slice(start, start + batch_size)
            input_ids, mask = (part.to(device) for part in model.pair_inputs(premises[rows], hypotheses[rows]))
            u, v = network.embed(input_ids, mask).chunk(2)  # (B, D) each
            probabilities.append(network.classify(u, v).softmax(dim=-1).cpu())
            sides.append((u.cpu(), v.cpu()))
    network.train(was_training)
    embeddings = torch.cat([u for u, _ in sides] + [v for _, v in sides])
    return Predictions(torch.cat(probabilities).numpy(), embeddings.numpy())
