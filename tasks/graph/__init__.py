"""Graphs: link prediction and node classification with Lorentz, tangent-space and Euclidean encoders."""
