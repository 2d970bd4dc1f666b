"""The gateway's work as others do it: each in a script and a venv of its own (``make bench-peers``), all started by
run.py. Of this project, the scripts may import work.py alone: theirs has nothing else installed."""
