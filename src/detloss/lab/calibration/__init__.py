"""Is a score a probability? Finished runs side by side: `detloss calibration`."""
