"""The dense detector by torchvision's detection API: losses in training, detections in evaluation."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from detloss.calling import IGNORED
from detloss.lab.detector.assign import NO_OBJECT
from detloss.lab.detector.criterion import Criterion, Sums
from detloss.lab.detector.detector import Detector, Grid, Output
from detloss.lab.detector.norms import norms_unmoved
from detloss.lab.detector.objective import Objective
from detloss.lab.detector.postprocess import Limits, detect


class DenseDetector(nn.Module):
    """The dense detector by torchvision's detection API, trained for an objective.

    Args:
        network: what says something of every location.
        objective: what it is trained for; None where it is only applied.

    Attributes:
        limits: which predictions become detections.
        terms: of the last training batch, without gradient and weights, by name. Those of the parts of a
            batch add up to its.
        notes: what was done to make it that a user should know.
        frozen: modules that stay in evaluation mode.
    """

    def __init__(self, network: Detector, objective: Objective | None = None) -> None:
        super().__init__()
        self.network, self.objective = network, objective
        self.limits = Limits()
        self.terms: dict[str, Tensor] = {}
        self.notes: list[str] = []
        self.frozen: list[nn.Module] = []
        self._grids: dict[tuple[int, int, torch.device], Grid] = {}

    def train(self, mode: bool = True) -> "DenseDetector":
        """As any module's, but what is frozen stays in evaluation mode."""
        super().train(mode)
        for module in self.frozen:
            module.eval()
        return self

    def forward(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]] | None = None) -> Any:
        """The weighted terms of the loss of a batch; in evaluation the detections of each image.

        Args:
            images: `(3, H, W)` with values in [0, 1], all of one size.
            targets: of each image `boxes` `(N, 4)` xyxy in pixels, `labels` `(N,)` 0..C-1, and where there
                are any, `ignored` `(K, 4)`: regions that are neither to be found nor a mistake when found.
        """
        batch, grid = self._located(images)
        height, width = batch.shape[-2:]
        output = self.network(batch)
        if not self.training:
            found = detect(self.network, grid, output, (height, width), self.limits)
            fields = ("boxes", "scores", "labels")
            return [{f: torch.from_numpy(getattr(one, f)).to(batch.device) for f in fields} for one in found]
        if self.objective is None or targets is None:
            raise ValueError("targets or the objective is None; training needs both, evaluation neither")
        with torch.autocast(batch.device.type, enabled=False):
            return self._losses(self.objective, grid, output, targets)

    @torch.no_grad()
    def sums(self, images: Sequence[Tensor], targets: Sequence[Mapping[str, Tensor]]) -> Sums:
        """What a part of a batch comes to before anything is divided: all parts, or what their losses need.

        The network is asked only where its output decides, and norms remember nothing of it.
        """
        batch, grid = self._located(images)
        goal, criterion = self.objective, self._criterion(grid)
        assert goal is not None
        assignment = self.network.assign(grid, *_padded(targets))
        if (known := criterion.ahead(assignment)) is not None:
            return known
        with norms_unmoved(self.network):
            output = self.network(batch)
        with torch.autocast(batch.device.type, enabled=False):
            return criterion.sums(output, assignment, goal.step, goal.first)

    def _losses(self, goal: Objective, grid: Grid, output: Output, targets: Any) -> dict[str, Tensor]:
        assignment = self.network.assign(grid, *_padded(targets))
        terms = self._criterion(grid)(output, assignment, goal.step, goal.first, goal.whole)
        self.terms = {
            "classification_loss": terms.classification.detach(),
            "box_loss": terms.box.detach(),
            "distribution_loss": terms.distribution.detach(),
            "objectness_loss": terms.objectness.detach(),
            "positives": terms.positives,
            "located_loss": terms.located,
            "positive_loss": terms.of_positives,
        }
        losses = {"classification": terms.classification}
        if output.objectness is not None:
            losses["objectness"] = terms.objectness
        losses["box"] = terms.weighted_box
        if self.network.config.bins:
            losses["distribution"] = terms.weighted_distribution
        return losses

    def _criterion(self, grid: Grid) -> Criterion:
        goal: Any = self.objective
        return Criterion(
            self.network,
            grid,
            goal.classification,
            goal.box,
            goal.box_weight,
            goal.distribution_weight,
            goal.balance,
            goal.weigh_boxes,
            goal.steps,
            goal.seed,
            goal.class_weights,
        )

    def _located(self, images: Sequence[Tensor]) -> tuple[Tensor, Grid]:
        """The images in one tensor, and the locations in each."""
        # Channels last, as images are stored: there its convolutions are faster.
        batch = torch.stack([image.permute(1, 2, 0) for image in images]).permute(0, 3, 1, 2)
        height, width = batch.shape[-2:]
        return batch, self._grid(height, width, batch.device)

    def _grid(self, height: int, width: int, device: torch.device) -> Grid:
        key = (height, width, device)
        if key not in self._grids:
            with torch.inference_mode(False):  # training may need it later
                self._grids[key] = self.network.grid(height, width, device)
        return self._grids[key]


def _padded(targets: Sequence[Mapping[str, Tensor]]) -> tuple[Tensor, Tensor]:
    """The objects of a batch as the assignment takes them: `(B, M, 4)` boxes and `(B, M)` labels."""
    boxes, labels = [], []
    for target in targets:
        box, label = target["boxes"], target["labels"]
        if "ignored" in target:
            box = torch.cat([box, target["ignored"]])
            label = torch.cat([label, label.new_full((len(target["ignored"]),), IGNORED)])
        boxes.append(box)
        labels.append(label)
    return pad_sequence(boxes, True), pad_sequence(labels, True, NO_OBJECT)
