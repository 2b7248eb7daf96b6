"""Proves that memory, once freed, is there for the next tensor, without the system's help."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

PAGES = """
import resource, torch
from minibert.device import keep_freed_memory
keep_freed_memory()
for _ in range(9):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(5_000_000)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept() -> None:
    """20 MB are 4,883 pages; in the end, after some have been split for smaller things, none has to be mapped anew."""
    done = subprocess.run(
        [sys.executable, "-c", PAGES], capture_output=True, text=True, check=True, cwd=Path(__file__).parent.parent
    )
    first, *_, last = map(int, done.stdout.split())
    assert first > 4_000
    assert last < 500
