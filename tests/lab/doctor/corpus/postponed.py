# ruff: noqa
from __future__ import annotations

import torch.nn.functional as F


def loss(x: Missing, t) -> Other:
    return F.binary_cross_entropy_with_logits(x, t, reduction="none")
