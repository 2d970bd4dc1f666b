"""Chat models that run in this process, without a server."""
