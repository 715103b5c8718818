"""What losses look like, as tables and figures: `detloss curves`."""
