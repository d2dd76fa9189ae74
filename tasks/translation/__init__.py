"""Machine translation with Lorentz transformers and their Euclidean twins, trained from nothing."""
