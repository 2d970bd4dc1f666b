"""The formats that a release comes in: one short file each."""
