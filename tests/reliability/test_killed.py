"""Proves that a run killed at any moment, again and again, ends with the very model of one that was left in peace."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from minibert.config import ModelConfig
from minibert.hub import save_mlm
from minibert.modern import make_masked_lm
from minibert.tokenizer import WordPieceTokenizer
from tests.data.rows import write
from tests.metrics import untimed
from tests.reliability.killing import kill_at_every_write, kill_at_random, train

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("task", ["mlm", "nli"])
@pytest.mark.parametrize("kill", [kill_at_random, kill_at_every_write])
def test_killed_and_resumed_is_never_killed(
    tmp_path: Path, config: ModelConfig, tokenizer: WordPieceTokenizer, task: str, kill: Callable[[str, Path], Any]
) -> None:
    """Deaths at random moments, or in the n-th write of the n-th process, before and after the file has its name."""
    save_mlm(tmp_path / "encoder", make_masked_lm(config), tokenizer)
    write(tmp_path / "articles.txt", [{"text": f"the cat sat on {i} mats. is {i} a dog? no."} for i in range(72)])
    rows = [{"premise": f"the cat {i}", "hypothesis": f"a dog {i % 7}", "label": i % 3} for i in range(64)]
    for split in ("train", "validation"):
        write(tmp_path / "pairs" / f"{split}.jsonl", rows)
    train(task, tmp_path / "whole", resume=False)
    deaths = kill(task, tmp_path / "killed")
    if kill is kill_at_every_write:
        assert len(deaths) >= 16
        assert {0, 1} <= {min(len(left), 1) for left in deaths}
        assert any("-killed.zip" in name for left in deaths for name in left) == (task == "nli")
    assert not list(tmp_path.rglob(".partial-*"))
    whole, again = tmp_path / "whole", tmp_path / "killed"
    files = {str(file.relative_to(whole)) for file in whole.rglob("*")}
    assert files == {str(file.relative_to(again)) for file in again.rglob("*")}
    for name in files - {"metrics.jsonl", "options.json", "training.png", "README.md"}:
        if (whole / name).is_file():
            assert (whole / name).read_bytes() == (again / name).read_bytes(), name
    assert untimed(whole) == untimed(again)
    if task == "nli":
        assert unzipped(tmp_path / "whole.zip") == unzipped(tmp_path / "killed.zip")


def unzipped(file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}
