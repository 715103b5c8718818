# ruff: noqa
from math import *

import torch.nn.functional as F


def loss(x, t):
    return F.binary_cross_entropy_with_logits(x, t, reduction="none") * pi
