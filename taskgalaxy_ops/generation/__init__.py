"""From images to samples: embed, match, filter, write, vote; how a run drives them, and what it came to."""
