"""Where the arithmetic is done, in which numbers, and by whose kernels.

On CUDA it has been run with one GPU (docs/speed.md); what `--compile` gains there is unmeasured. On MPS it has not.
"""

from __future__ import annotations

import ctypes
import sys
from contextlib import AbstractContextManager, nullcontext

import torch

from minibert import fast
from minibert.errors import UserError
from minibert.options import DEVICE


def pick_device(name: str, threads: int = 0, local_rank: int | None = None) -> torch.device:
    """The device of `--device`; auto is CUDA, then Apple's MPS, then the CPU (with `threads`; 0 is torch's own choice).

    If several processes train together, cuda is the GPU of this one's `local_rank` on its machine.
    """
    if threads:
        torch.set_num_threads(threads)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    if local_rank is not None and name.startswith("cuda:"):
        raise UserError(f"--device {name} is one GPU for all ranks: give cuda, and each takes its own")
    if local_rank is not None and name == "cuda":
        name = f"cuda:{local_rank}"
    if name.partition(":")[0] not in ("cpu", "cuda", "mps"):  # "meta", say, which makes tensors without numbers
        raise UserError(f"--device {name} can't be used here: choose {DEVICE}")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
        if device.type == "cuda":
            torch.cuda.set_device(device)  # NCCL uses the current one
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UserError(f"--device {name} can't be used here: {_why_not(name)}") from error
    return device


def _why_not(name: str) -> str:
    """What is missing for a device, and what there is instead."""
    if not name.startswith("cuda"):
        return "torch finds no such device; give auto or cpu"
    if torch.version.cuda is None:
        return "this torch was built without CUDA; give auto or cpu, or install another (pytorch.org says how)"
    if not torch.cuda.is_available():
        return "torch finds no GPU, or no driver that suits it (does nvidia-smi show one?); give auto or cpu"
    return f"torch finds cuda:0 to cuda:{torch.cuda.device_count() - 1}"


def pick_precision(name: str, device: torch.device) -> str:
    """What `--precision` means on a device: float32, or bfloat16, which auto picks on CUDA if the hardware has it.

    In bfloat16, matrix products have 8 bits of precision and are summed in float32; weights, norms, losses and the
    optimiser's sums stay in float32 (torch.autocast). In float32, CUDA's matrix products may round what they multiply
    to TF32, 11 bits.

    Source: Micikevicius et al. 2018, "Mixed precision training", section 3 (with float16).
    """
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    if name == "auto":
        return "bfloat16" if device.type == "cuda" and has_bfloat16(device) else "float32"
    if name == "bfloat16":
        try:
            torch.autocast(device.type, torch.bfloat16)
        except RuntimeError as error:
            raise UserError(f"--precision bfloat16 can't be used on {device}: give float32") from error
    return name


def products(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Within it, matrix products are computed in bfloat16, or in float32 as usual."""
    return torch.autocast(device.type, torch.bfloat16) if precision == "bfloat16" else nullcontext()


def has_bfloat16(device: torch.device) -> bool:
    """Whether the hardware multiplies bfloat16; a CPU that does not takes tens of times as long as in float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return device.type == "cpu" and (torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def compile_blocks(device: torch.device) -> None:
    """Have torch.compile make kernels for encoder blocks, once for all blocks and sizes, when the first is used.

    A small function is compiled first, to find out at the beginning whether that is possible: it mostly fails for want
    of a C++ compiler.
    """
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except RuntimeError as error:
        why = str(error).strip().splitlines()[0]
        raise UserError(f"--compile can't be used here: leave it out, or install a C++ compiler ({why})") from error
    fast.block = torch.compile(fast.block, dynamic=True)


def keep_freed_memory() -> None:
    """Have the C library (glibc, elsewhere nothing is done) keep freed memory for what is allocated next.

    A pretraining step allocates and frees some hundreds of megabytes. Memory that the system hands out anew has to be
    mapped and zeroed page by page, which took a sixteenth of the step's time where docs/speed.md was measured. The
    price is memory: what is kept has been cut up for smaller things, and does not always fit.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if sys.platform == "linux" else None
    if mallopt is not None:
        trim_threshold, mmap_threshold = -1, -3  # as <malloc.h> numbers them
        mallopt(mmap_threshold, 32 * 2**20)  # the most it takes; what is larger is still mapped by itself
        mallopt(trim_threshold, 2**31 - 1)


def describe(device: torch.device, ranks: int = 1) -> str:
    """The device as a run's summary names it, and how many processes have one like it."""
    name, threads = str(device), torch.get_num_threads()
    if device.type == "cuda":
        name = f"{device} ({torch.cuda.get_device_name(device)})"
    elif device.type == "cpu":
        name = f"{device} ({threads} {'thread' if threads == 1 else 'threads'})"
    return name if ranks == 1 else f"{ranks} ranks, the first on {name}"
