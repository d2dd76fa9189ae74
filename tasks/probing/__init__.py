"""Structural probes: how much of a dependency tree a linear map finds in the states of a frozen encoder."""
