"""Masked language modelling: small Lorentz encoders and their Euclidean twins, trained from nothing."""
