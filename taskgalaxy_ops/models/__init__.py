"""Clients of chat models, and encoders. Nothing here knows a store."""
