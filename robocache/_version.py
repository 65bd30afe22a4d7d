"""The package's version, the only place that states it: setup.py, the wheel and rc_version() read it from here."""

__version__ = "0.1.0"
