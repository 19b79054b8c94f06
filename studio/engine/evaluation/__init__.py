"""Whether a training was worth it: the same scenes with and without it, judged."""
