# ruff: noqa
# As a page prints it: no imports, no bin after the last, and the value is never returned.
class DistributionFocalLoss(nn.Module):
    def __init__(self, reg_max):
        super(DistributionFocalLoss, self).__init__()
        self.reg_max = reg_max

    def forward(self, pred, true):
        tl = true.long()
        tr = tl + 1
        wl = tr - true
        wr = 1 - wl
        dfl = (
            F.cross_entropy(pred, tl.view(-1), reduction="none").view(tl.shape) * wl
            + F.cross_entropy(pred, tr.view(-1), reduction="none").view(tl.shape) * wr
        ).mean(-1, keepdim=True)
