"""The texts that commands and tasks print for people, a module a subject."""
