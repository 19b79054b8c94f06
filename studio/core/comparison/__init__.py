"""What comparisons come to: rankings of votes, effects of axes, distances of sets of images."""
