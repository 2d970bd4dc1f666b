"""Encoders: images and texts as points of one space."""
