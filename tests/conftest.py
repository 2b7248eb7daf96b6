"""What all tests share: no network, a cache of their own, one thread, and a model small enough to check by hand.

What tests of single layers do not need is imported where it is used: these run with torch, numpy and pytest alone.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

# Before anything imports the libraries that read these.
os.environ["HF_HOME"] = tempfile.mkdtemp(prefix="minibert-tests-")
os.environ["XDG_CACHE_HOME"] = os.environ["HF_HOME"]
os.environ["GRADIO_TEMP_DIR"] = os.environ["HF_HOME"]
os.environ["TORCHINDUCTOR_CACHE_DIR"] = os.environ["HF_HOME"]
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # of the programs that tests start, too: cores are shared, and threads wait for one
os.environ["NO_COLOR"] = os.environ["FORCE_COLOR"] = ""
os.environ["TORCH_CPP_LOG_LEVEL"] = "ERROR"  # where names can't be resolved, gloo says so on stderr, which tests read

import pytest
import torch

from minibert.config import ModelConfig

if TYPE_CHECKING:
    from minibert.inference import TrainedModel
    from minibert.tokenizer import WordPieceTokenizer

atexit.register(shutil.rmtree, os.environ["HF_HOME"], ignore_errors=True)

TEXTS = [
    "The cat sat on the mat, and the dog sat on the log.",
    "A dog is an animal; a cat is an animal too!",
    "Is the cat sleeping on the mat?",
    "No dogs sleep on the log.",
] * 4


with contextlib.suppress(ImportError):
    os.environ["HYPOTHESIS_STORAGE_DIRECTORY"] = os.environ["HF_HOME"]
    import hypothesis

    # The same cases every time, and nothing written; HYPOTHESIS_PROFILE=explore looks for new ones, ten times as many.
    hypothesis.settings.register_profile("same", max_examples=300, derandomize=True, database=None, deadline=None)
    hypothesis.settings.register_profile("explore", max_examples=3_000, database=None, deadline=None)
    hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

with contextlib.suppress(ImportError):
    import tqdm

    tqdm.tqdm.monitor_interval = 0  # otherwise each bar, shown or not, starts a thread

torch.set_num_threads(1)  # here too: fixtures of modules come before `_isolated`, and threads change the last digits


CONNECT = socket.socket.connect


def _no_network(self: socket.socket, address: Any) -> None:
    if self.family != socket.AF_UNIX:  # by which processes of one machine talk
        raise OSError("tests have no network")
    CONNECT(self, address)


@pytest.hookimpl(trylast=True)  # when the order has been drawn
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with what takes long, so that in the end no core waits for another one's last test."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", _no_network)
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def no_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    """For trainings of which no test looks at the picture, half a second each."""
    monkeypatch.setattr("minibert.run.plot_training", lambda folder: None)


def touch_picture(figure: str, model: Path, *_: object) -> None:
    """Stands in for `plot_answers`, where no test looks at the picture: an empty file in its place."""
    from minibert import plots

    with plots.optional():
        (Path(figure) if figure else plots._beside(model)).touch()


@pytest.fixture
def config() -> ModelConfig:
    """A tiny model, every size different from every other, so that a mixed-up pair of sizes shows."""
    return ModelConfig(
        vocab_size=61,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=3,
        intermediate_size=40,
        max_position_embeddings=19,
        type_vocab_size=2,
    )


@pytest.fixture
def tokenizer() -> WordPieceTokenizer:
    """61 tokens: the special ones, letters, and a few words and pieces."""
    from minibert.tokenizer import SPECIAL_TOKENS, WordPieceTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["the", "cat", "dog", "mat", "sat", "on", "is", "an", "animal", "and", "log", "##s", "##ing", "sleep", "."]
    tokens = [*SPECIAL_TOKENS, *letters, *words, ",", "?", "!", ";", *(f"##{letter}" for letter in "abcdefghijk")]
    assert len(tokens) == 61
    return WordPieceTokenizer.from_vocabulary(tokens)


@pytest.fixture
def model(config: ModelConfig, tokenizer: WordPieceTokenizer) -> TrainedModel:
    """All heads on one encoder, with weights large enough that answers differ."""
    from minibert.inference import TrainedModel
    from minibert.modern import make_masked_lm
    from minibert.sbert import NLIClassifier, SentenceEncoder

    masked_lm = make_masked_lm(config)
    for parameter in masked_lm.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    encoder = SentenceEncoder(masked_lm.bert)
    return TrainedModel(encoder, tokenizer, 10, masked_lm=masked_lm, classifier=NLIClassifier(encoder))
