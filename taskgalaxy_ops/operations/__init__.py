"""What one does with a store beside running it: look, verify, forecast, explain, take down (docs/operations.md)."""
