"""Tests of RoboCache. `make test` runs them; `make test-gpu` runs them with GPU tests required."""
