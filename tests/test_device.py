"""Proves that memory, once freed, is there for what is allocated next, without the system's help; names of devices."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minibert.device import describe

# The C library's own malloc, not a tensor: torch asks for aligned memory, and what glibc adds for that decides by
# chance whether a freed block fits again. 80 MB are 19,531 pages of 4 kB, more than glibc keeps of its own accord.
PAGES = """
import ctypes, resource
from minibert.device import keep_freed_memory
libc, size = ctypes.CDLL(None), 20_000_000
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
{call}
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(size) for _ in range(4)]
    for block in blocks:
        ctypes.memset(block, 1, size)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    for block in blocks:
        libc.free(block)
"""


def test_how_a_summary_names_the_device() -> None:
    assert describe(torch.device("cpu")) == "cpu (1 thread)"
    torch.set_num_threads(2)
    assert describe(torch.device("cpu"), ranks=3) == "3 ranks, the first on cpu (2 threads)"


def pages_mapped(call: str) -> list[int]:
    """How many pages the system has to map for 80 MB that are allocated, written and freed, four times over."""
    done = subprocess.run(
        [sys.executable, "-c", PAGES.format(call=call)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent,
    )
    return [int(line) for line in done.stdout.split()]


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept() -> None:
    given_back, kept = pages_mapped(""), pages_mapped("keep_freed_memory()")
    assert kept[0] > 10 * kept[-1]
    assert given_back[-1] > 10 * kept[-1]
