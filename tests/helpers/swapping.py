"""What the tests of `detloss.integrations` share: loss curves, and a loss that counts its calls."""

import copy

import torch
from torch import nn

from detloss import sigmoid_focal_loss

STEPS = 20


def curve(model, step, steps=STEPS, lr=0.01):
    """The losses of some steps of SGD on a copy of the model; `step(model)` gives one, or a dict of terms."""
    torch.manual_seed(0)
    model = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, momentum=0.9)
    losses = []
    for _ in range(steps):
        terms = step(model)
        total = sum(terms.values()) if isinstance(terms, dict) else terms
        optimizer.zero_grad()
        total.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        losses.append(
            [float(term.detach()) for term in terms.values()]
            if isinstance(terms, dict)
            else [float(total.detach())]
        )
    curve = torch.tensor(losses, dtype=torch.float64)
    assert curve.isfinite().all()
    return curve


class Counting:
    """Focal loss that counts its calls, and remembers the targets of the last one."""

    def __init__(self):
        self.calls, self.targets, self.quality = 0, None, None

    def __call__(self, inputs, targets, reduction="none", *, ignore_index=-100, impl="auto"):
        self.calls, self.targets = self.calls + 1, targets
        return sigmoid_focal_loss(inputs, targets, reduction=reduction, ignore_index=ignore_index, impl=impl)


def boxes_of(generator, count, size):
    """Random boxes of at least an eighth of an image."""
    corner = torch.rand(count, 2, generator=generator, dtype=torch.float64) * size / 2
    side = (0.125 + 0.375 * torch.rand(count, 2, generator=generator, dtype=torch.float64)) * size
    return torch.cat([corner, corner + side], 1)


def backbone(channels):
    layers = [nn.Conv2d(3, channels, 3, 4, 1), nn.ReLU(), nn.Conv2d(channels, channels, 3, 2, 1), nn.ReLU()]
    body = nn.Sequential(*layers)
    body.out_channels = channels
    return body


def retinanet(loss_type="l1"):
    from torchvision.models import detection

    anchors = detection.anchor_utils.AnchorGenerator(((12, 20, 32),), ((0.5, 1.0, 2.0),))
    model = detection.RetinaNet(backbone(8), 4, min_size=64, max_size=64, anchor_generator=anchors)
    model.head.regression_head._loss_type = loss_type
    return model


def retinanet_batch():
    """Three images, one of them without objects."""
    generator = torch.Generator().manual_seed(2)
    images = [torch.rand(3, 64, 64, generator=generator, dtype=torch.float64) for _ in range(3)]
    targets = [
        {
            "boxes": boxes_of(generator, count, 64),
            "labels": torch.randint(1, 4, (count,), generator=generator),
        }
        for count in (3, 0, 1)
    ]
    return images, targets


def retinanet_step(model):
    images, targets = retinanet_batch()
    return model(images, [dict(target) for target in targets])
