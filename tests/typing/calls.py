"""Calls that a type checker must accept, and those that it must refuse, which are marked."""

import torch

import detloss
from detloss import SigmoidFocalLoss, complete_box_iou_loss, sigmoid_focal_loss

logits, labels = torch.zeros(4, 3), torch.zeros(4, dtype=torch.long)
boxes = torch.zeros(4, 4)

loss: torch.Tensor = sigmoid_focal_loss(logits, labels, 0.25, 2.0, "sum", weight=logits, ignore_index=-1)
loss = detloss.quality_focal_loss(logits, labels, beta=1.5, alpha=None, quality=loss, impl="eager")
loss = detloss.varifocal_loss(logits, labels, alpha=torch.ones(3), gamma=torch.tensor(2.0))
loss = detloss.softmax_focal_loss(logits, labels, label_smoothing=0.1)
loss = detloss.distribution_focal_loss(logits, logits[:, 0], weight=logits[:, 0])
loss = detloss.distribution_integral(logits, bins=torch.arange(3.0))
loss = detloss.iou_aware_bce_loss(logits, labels, alpha=0.5, quality=loss)
loss = detloss.gaussian_focal_loss(logits, logits, 2.0, 4.0, "sum")
loss = detloss.smooth_l1_box_loss(boxes, boxes, beta=0.1, relative=True, fmt="cxcywh")
loss = complete_box_iou_loss(boxes, boxes, "mean", 1e-6, weight=loss, fmt="cxcywh")
loss = SigmoidFocalLoss(gamma=1.5, reduction="sum")(logits, labels, weight=loss)
loss = detloss.BCEWithLogitsLoss(pos_weight=torch.ones(3))(logits, labels)

sigmoid_focal_loss(logits, labels, gama=2.0)  # refused
sigmoid_focal_loss(logits)  # refused
sigmoid_focal_loss(logits, labels, reduction=3)  # refused
sigmoid_focal_loss(logits, labels, 0.25, 2.0, "sum", logits)  # refused
detloss.quality_focal_loss(logits, labels, gamma=2.0)  # refused
detloss.sigmoid_focal_loss(logits, labels, quality=loss)  # refused
complete_box_iou_loss(boxes, boxes, alpha=0.5)  # refused
detloss.box_iou_loss(boxes, boxes, "none", 1e-7, loss)  # refused
SigmoidFocalLoss(gama=1.5)  # refused
SigmoidFocalLoss()(logits, labels, quality=loss)  # refused
words: str = detloss.VarifocalLoss()(logits, labels)  # refused
number: int = detloss.generalized_box_iou_loss(boxes, boxes)  # refused
