"""TaskGalaxy: turns images into vision-language instruction data with tens of thousands of task types."""

__version__ = "0.1.0"
