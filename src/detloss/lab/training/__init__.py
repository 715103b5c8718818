"""Training, evaluating and using one detector: `detloss train`, `evaluate`, `predict`."""
