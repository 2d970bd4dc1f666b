"""TaskGalaxy: turns images into vision-language instruction data with tens of thousands of task types."""

from __future__ import annotations

from typing import TYPE_CHECKING

RELEASED_VERSION = "0.1.0"  # pyproject.toml reads it from here

if TYPE_CHECKING:
    __version__: str
else:

    def __getattr__(name: str) -> str:
        """``__version__``, computed when somebody asks: importing the package starts no process."""
        if name == "__version__":
            return _version()
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _version() -> str:
    """The released version; in a git checkout with the commit, and with ``.dirty`` where tracked files were changed.

    Examples: ``0.1.0`` from a wheel, ``0.1.0+g1fd4846ab`` and ``0.1.0+g1fd4846ab.dirty`` from a checkout. A source tree
    without git's folder, or a machine without git, gives the released version.
    """
    import subprocess
    from pathlib import Path

    root = Path(__file__).parents[1]
    # Only a checkout of this project: an installed copy may lie in a virtual environment inside somebody else's.
    if not ((root / ".git").exists() and (root / "pyproject.toml").exists()):
        return RELEASED_VERSION
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--exclude=*", "--abbrev=9"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return RELEASED_VERSION
    return f"{RELEASED_VERSION}+g{done.stdout.strip().replace('-', '.')}"
