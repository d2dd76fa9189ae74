"""``hyrel run compare-deltas``: methods of delta tuning side by side, on one or several backbones and data sets."""
