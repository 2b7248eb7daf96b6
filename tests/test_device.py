"""Proves that a device that is not there is said to lack what it lacks, and that freed memory is kept."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from minibert.device import describe, pick_device
from minibert.errors import UserError

# The C library's own malloc, not a tensor: torch asks for aligned memory, and what glibc adds for that decides by
# chance whether a freed block fits again. 80 MB are 19,531 pages of 4 kB, more than glibc keeps of its own accord.
PAGES = """
import ctypes, resource
from minibert.device import keep_freed_memory
libc, size = ctypes.CDLL(None), 20_000_000
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
for keep in (lambda: None, keep_freed_memory):
    keep()
    for _ in range(4):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [libc.malloc(size) for _ in range(4)]
        for block in blocks:
            ctypes.memset(block, 1, size)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        for block in blocks:
            libc.free(block)
"""


def test_how_a_summary_names_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe(torch.device("cpu")) == "cpu (1 thread)"
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert describe(torch.device("cpu"), ranks=3) == "3 ranks, the first on cpu (2 threads)"


@pytest.mark.parametrize(
    ("name", "cuda", "count", "message"),
    [
        ("cuda", None, 0, "built without CUDA; give auto or cpu"),
        ("cuda:1", "12.8", 0, "torch finds no GPU, or no driver that suits it"),
        ("cuda:7", "12.8", 2, "torch finds cuda:0 to cuda:1"),
        ("mps", "12.8", 2, "torch finds no such device"),
        ("meta", "12.8", 2, "choose auto, cpu, cuda, cuda:N or mps"),
    ],
)
def test_what_is_missing_for_a_device(
    name: str, cuda: str | None, count: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def empty(*_: object, **__: object) -> None:
        raise RuntimeError("no such device")

    monkeypatch.setattr(torch, "empty", empty)
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"--device {name} can't be used here: .*{message}"):
        pick_device(name)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "mallopt"), reason="another C library than glibc")
def test_freed_memory_is_kept() -> None:
    """How many pages the system maps for 80 MB that are allocated, written and freed: four times before, four after."""
    root = Path(__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", PAGES], capture_output=True, text=True, check=True, cwd=root)
    *_, given_back, first, _, _, last = map(int, done.stdout.split())
    assert first > 10 * last
    assert given_back > 10 * last
