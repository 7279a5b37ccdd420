"""Memory of this machine and of its GPUs: how much there is, and how much this process has used at its peak."""

import os
import sys
from pathlib import Path

_STATUS = Path("/proc/self/status")
_MEMORY_INFO = Path("/proc/meminfo")


def total_memory(device: str = "cpu") -> int | None:
    """Total memory of a device in bytes; None if the system does not report it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.get_device_properties(torch.device(device)).total_memory)
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def available_memory(device: str = "cpu") -> int | None:
    """Bytes that a process can still use on a device without others losing theirs; None if it is not known."""
    if device.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(torch.device(device))
        reserved = torch.cuda.memory_reserved(torch.device(device)) - torch.cuda.memory_allocated(torch.device(device))
        return int(free + reserved)
    if device == "mps":
        import torch

        return torch.mps.recommended_max_memory() - torch.mps.current_allocated_memory()
    try:
        lines = _MEMORY_INFO.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        return None


def gigabytes(size: int) -> str:
    """A number of bytes for people, in units of 10^9 bytes: `25.3 GB`."""
    return f"{size / 1e9:.1f} GB"


def peak_memory(device: str = "cpu") -> int | None:
    """Peak memory of this process on a device in bytes; None if the system does not report it."""
    if device.startswith("cuda"):
        import torch

        return int(torch.cuda.max_memory_allocated(torch.device(device)))
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return _peak_by_rusage()


def _peak_by_rusage() -> int | None:
    """Less exact than /proc: a forked process reports its parent's peak if that was higher."""
    if sys.platform == "win32":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
