"""In which dtype losses and overlaps are computed."""

import torch


def arithmetic_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 for float64; float32 for all else, half precision and integers among them."""
    return torch.float64 if dtype == torch.float64 else torch.float32
