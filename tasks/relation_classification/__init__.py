"""Relation classification: a linear head on marker features of a frozen encoder, with or without a similarity margin."""
