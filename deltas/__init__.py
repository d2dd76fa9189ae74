"""Delta tuning (parameter-efficient tuning) on Euclidean and Lorentz backbones."""
