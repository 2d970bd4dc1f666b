"""From images to samples: the stages embed, match, filter, write and vote, the run that drives them, its results."""
