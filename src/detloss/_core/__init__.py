"""How a formula becomes a loss: targets, weights, reductions, checks; eager or one compiled pass."""
