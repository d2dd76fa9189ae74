"""Measurements: each module is a command, ``python -m benchmarks.NAME``, that writes ``benchmarks/results/NAME.json``."""
