"""Rows as files in every format, for the tests of what is read."""

from __future__ import annotations

import csv
import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Rows as a file in the format that the name's ending says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    ending = (Path(path.stem).suffix if path.suffix.lower() == ".gz" else path.suffix).lower()
    if ending == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
        return path
    opener: Any = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "wt", encoding="utf-8", newline="") as file:
        if ending == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        elif ending == ".json":
            json.dump(rows, file)
        elif ending == ".txt":
            file.write("\n\n".join(row["text"] for row in rows))
        elif ending == ".tsv":
            file.writelines("\t".join(map(str, cells)) + "\n" for cells in [rows[0], *(row.values() for row in rows)])
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path
