"""Speed, as ratios against the stock way in one run."""
