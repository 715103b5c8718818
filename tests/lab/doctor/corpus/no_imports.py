# ruff: noqa
class Loss(nn.Module):
    def forward(self, x, t):
        return F.binary_cross_entropy_with_logits(x, t) + math.pi * 0


def unrelated(x):
    return missing(x)
