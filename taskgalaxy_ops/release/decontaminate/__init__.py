"""What of a release is in a benchmark (docs/decontamination.md).

``reading`` reads a benchmark's items, ``questions`` and ``pictures`` compare, ``leaks`` leaves out or marks what they
find. Only ``stored`` uses a store.
"""

RULE = 2  # one more whenever the same pictures and questions may be found otherwise
