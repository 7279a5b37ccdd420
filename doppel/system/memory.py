"""How much memory there is, and how much this process has taken at most: the machine's, or a GPU's. Knows no model."""

import os
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")


def total_memory(device: str = "cpu") -> int | None:
    """Bytes of memory that belong to a device; None where nobody can tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def gigabytes(size: int) -> str:
    """A number of bytes for people, in units of 10^9 bytes: `25.3 GB`."""
    return f"{size / 1e9:.1f} GB"


def peak_memory(device: str = "cpu") -> int | None:
    """Bytes this process has had at most, on a GPU there, else in this machine's memory; None where nobody can tell."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(torch.device(device)))
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return _peak_elsewhere()


def _peak_elsewhere() -> int | None:
    if sys.platform == "win32":
        return None
    import resource  # counts the parent's memory in where a process was forked, so it is only the second choice

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
