"""What of a release is in a benchmark (docs/decontamination.md).

``reading`` reads a benchmark's items, ``questions`` and ``pictures`` compare, ``leaks`` leaves out or marks what they
find. Only ``stored`` uses a store.
"""
