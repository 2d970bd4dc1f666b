"""The formats of a release, a module each."""
