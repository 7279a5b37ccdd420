"""Row counts rounded up, because oneDNN compiles a kernel for each shape of a bfloat16 product and keeps it.

A model has some fifty products of different shapes, and its cache holds 1,024 kernels: with more than twenty lengths
of micro-batches it compiles again and again, at 1.5 MB and some milliseconds each.
"""

import torch

_MULTIPLE = 64


def missing_rows(rows: int, dtype: torch.dtype, device: torch.device) -> int:
    """How many rows to add; 0 where shapes do not matter."""
    return -rows % _MULTIPLE if dtype == torch.bfloat16 and device.type == "cpu" else 0
