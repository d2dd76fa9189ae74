"""Machine translation with Lorentz transformers and their Euclidean twins, trained from nothing."""

from .translate import load_translator, translate

__all__ = ["load_translator", "translate"]
