"""Truth and detections of an image, written as rows."""

from dataclasses import dataclass

import numpy as np

from detloss.lab.evaluate import Detections


@dataclass(frozen=True)
class Annotated:
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray
    id: str = "image"


def truth(*rows: tuple[float, float, float, float, int], ignored: tuple[int, ...] = ()) -> Annotated:
    """Rows (x1, y1, x2, y2, label)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 5)
    mask = np.zeros(len(table), bool)
    mask[list(ignored)] = True
    return Annotated(table[:, :4], table[:, 4].astype(np.int64), mask)


def found(*rows: tuple[float, float, float, float, int, float]) -> Detections:
    """Rows (x1, y1, x2, y2, label, score)."""
    table = np.array(rows, dtype=np.float32).reshape(-1, 6)
    return Detections(table[:, :4], table[:, 5], table[:, 4].astype(np.int64))
