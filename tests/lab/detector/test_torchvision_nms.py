"""Suppression against torchvision's."""

import pytest
import torch

from detloss.lab.detector.postprocess import Limits, suppress

ops = pytest.importorskip("torchvision.ops")


@pytest.mark.clients
@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7])
def test_equals_batched_nms(seed: int, threshold: float):
    generator = torch.Generator().manual_seed(seed)
    corner, size = torch.rand(2, 500, 2, generator=generator) * 100
    boxes, scores = torch.cat([corner, corner + size], 1), torch.rand(500, generator=generator)
    labels = torch.randint(0, 4, (500,), generator=generator)
    kept = ops.batched_nms(boxes, scores, labels, threshold)[:80]
    found = suppress(boxes, scores, labels, Limits(nms=threshold, detections=80))
    torch.testing.assert_close(torch.from_numpy(found.boxes), boxes[kept], rtol=0, atol=0)
    torch.testing.assert_close(torch.from_numpy(found.scores), scores[kept], rtol=0, atol=0)
    torch.testing.assert_close(torch.from_numpy(found.labels), labels[kept], rtol=0, atol=0)
