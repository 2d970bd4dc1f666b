"""Simulated models: an OpenAI-compatible server that answers from what it can really compute from pixels.

``serve.serve`` runs it, ``config.SimulatorConfig`` says how good, how slow and how reliable it is. It backs the demo,
the tests and the benchmarks; what it makes is marked ``simulated`` and is no real teacher's work.
"""
