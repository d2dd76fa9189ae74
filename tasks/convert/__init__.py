"""Conversion: a pretrained Euclidean encoder as a Lorentz model, trained to keep its states while k falls."""
