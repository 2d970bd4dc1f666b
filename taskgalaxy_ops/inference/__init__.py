"""Makes the paid calls for one image shard: gateway, lease, journal, budget, and batches that end later."""
