"""A detector as a user writes one: one convolution, a centre point a cell, in a file of its own."""

OWN = '''
import torch
from torch import nn


class Tiny(nn.Module):
    """One box a cell of 8 pixels, round its centre; a cell that holds an object's centre must find it."""

    def __init__(self, classes, classification_loss, box_loss, width):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, width, 8, 8), nn.BatchNorm2d(width), nn.ReLU())
        self.head = nn.Conv2d(width, classes + 4, 1)
        self.head.bias.data[:classes] = -3.0
        self.classes, self.losses = classes, (classification_loss, box_loss)

    def forward(self, images, targets=None):
        out = self.head(self.backbone(torch.stack(list(images)))).flatten(2).mT
        logits, sides = out.split([self.classes, 4], -1)
        rows = images[0].shape[-1] // 8
        cells = torch.stack(torch.meshgrid(torch.arange(rows), torch.arange(rows), indexing="xy"), -1)
        centres = (cells.flatten(0, 1) * 8.0 + 4)
        grown = 8 * sides.clamp(max=4).exp()
        boxes = torch.cat([centres - grown[..., :2], centres + grown[..., 2:]], -1)
        if not self.training:
            found = logits.sigmoid().max(-1)
            return [
                {"boxes": b, "scores": s, "labels": c} for b, s, c in zip(boxes, found.values, found.indices)
            ]
        labels = torch.full(logits.shape[:2], self.classes)
        where, true = [], []
        for i, target in enumerate(targets):
            middle = ((target["boxes"][:, :2] + target["boxes"][:, 2:]) / 16).long().clamp(0, rows - 1)
            cell = middle[:, 1] * rows + middle[:, 0]
            labels[i, cell] = target["labels"]
            where += [(i, int(c)) for c in cell]
            true.append(target["boxes"])
        at = tuple(torch.tensor(where, dtype=torch.long).reshape(-1, 2).T)
        count = max(1, len(where))
        classification, box = self.losses
        if classification is None:
            hot = torch.nn.functional.one_hot(labels, self.classes + 1)[..., : self.classes].float()
            term = nn.functional.binary_cross_entropy_with_logits(logits, hot, reduction="sum")
        else:
            term = classification(logits, labels, reduction="sum")
        found, true = boxes[at], torch.cat(true)
        box_term = (found - true).abs().sum() / 8 if box is None else box(found, true, reduction="sum")
        return {"classification": term / count, "box": box_term / count}


def build(names, classification_loss, box_loss, width=8):
    return Tiny(len(names), classification_loss, box_loss, width)


def nothing(names, classification_loss, box_loss):
    return len(names)


def failing(names, classification_loss, box_loss):
    raise KeyError("oh")
'''
