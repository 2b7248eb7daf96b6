"""Proves that the benchmarks run: every case, at a tiny size, on toy text, as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from minibert.data.tokenizer import SPECIAL_TOKENS

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent


def test_compare(tmp_path: Path) -> None:
    tiny = [
        "--rounds", "2", "--steps", "1", "--articles", "40", "--sentences", "40", "--starts", "1", "--profile",
        "--json", str(tmp_path / "x.json"),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "compare.py"), *tiny],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "x.json").read_text())
    for name in ("mlm", "nli", "encode", "tokenise"):
        figures = report[name]
        assert len(figures["ratio"]["rounds"]) == 2
        assert figures["ratio"]["min"] <= figures["ratio"]["median"] <= figures["ratio"]["max"]
        assert min(figures["theirs"], figures["ours"], figures["ratio"]["min"]) > 0
        assert f"{name:<10} " in done.stdout
    assert "aten::addmm" in done.stdout
    assert report["mlm"]["gigaflop_per_unit"] > 0
    assert report["gemm_gflops"] > 0
    assert 0 < report["start"]["help"] < min(report["start"]["step"], report["start"]["again"])
    assert {"torch", "transformers", "processor"} <= report["machine"].keys()


def test_memory(tmp_path: Path) -> None:
    text = "The cat number {} sat on the mat and looked at the log for a long while. "
    rows = [json.dumps({"text": text.format(number) * 5}) for number in range(30)]
    (tmp_path / "articles.jsonl").write_text("\n".join(rows))
    words = ["the", "cat", "number", "sat", "on", "mat", "and", "looked", "at", "log", "for", "a", "long", "while", "."]
    (tmp_path / "vocab.txt").write_text("\n".join([*SPECIAL_TOKENS, *words, *"0123456789"]))
    done = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--data", str(tmp_path / "articles.jsonl"),
         "--vocab", str(tmp_path / "vocab.txt"), "--copies", "2", "--steps", "1", "--held-out", "5",
         "--json", str(tmp_path / "x.json")],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    built, reused = json.loads((tmp_path / "x.json").read_text())
    assert (built["store"], reused["store"]) == ("built", "reused")
    for run in (built, reused):
        assert run["articles"] == 55
        assert run["tokens"] > 55 * 50
        assert run["peak_mb"] > 100
        assert run["seconds"] > 0
