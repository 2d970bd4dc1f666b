"""The gateway's work done by other tools, each in its own script and venv (``make bench-peers``), started by run.py.

The scripts import only work.py of this project, because their venvs lack its dependencies."""
