"""Clients of chat models and encoders. They know no store."""
