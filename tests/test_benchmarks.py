"""Proves that the benchmarks run: every case, at a tiny size, on toy text, as a user starts them."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_compare(tmp_path: Path) -> None:
    tiny = [
        "--rounds",
        "2",
        "--steps",
        "1",
        "--articles",
        "40",
        "--sentences",
        "40",
        "--json",
        str(tmp_path / "x.json"),
    ]
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
    assert report["mlm"]["gigaflop_per_unit"] > 0
    assert report["gemm_gflops"] > 0
    assert 0 < report["start"]["help"] < report["start"]["step"]
    assert {"torch", "transformers", "processor"} <= report["machine"].keys()
