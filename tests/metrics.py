"""Reading metrics.jsonl, for the tests that compare runs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def records(folder: Path, kind: str = "") -> list[dict[str, Any]]:
    """The records of a run, or those of one kind."""
    lines = map(json.loads, (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return [line for line in lines if kind in ("", line["kind"])]


def untimed(folder: Path) -> list[dict[str, Any]]:
    """All records, without what differs between equal runs."""
    differing = ("tokens_per_second", "seconds", "date")
    return [{k: v for k, v in line.items() if k not in differing} for line in records(folder)]
