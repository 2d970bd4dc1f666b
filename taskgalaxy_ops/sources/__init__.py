"""Where images come from: list, check and register a source's files; the sources that ship with TaskGalaxy."""
