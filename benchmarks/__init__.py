"""Benchmarks: ratios whose two sides are measured in one run. `make bench` runs them all."""
