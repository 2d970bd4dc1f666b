"""Mixtures: samples of releases and rows of base data, by weights, in a folder that trains as it lies.

The parts are read (``reading``) into a temporary database (``staging``), from which rows are drawn by hash; the images
of those are copied (``pictures``), the rows written (``writing``), and ``mixture.json`` says what went in (``mix``).
"""
