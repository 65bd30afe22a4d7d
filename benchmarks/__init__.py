"""Measures RoboCache beside its peers: `python -m benchmarks --device cuda|cpu`.

The case table (`cases.py`) is shared with the tests, so what is timed is what is checked.
"""
