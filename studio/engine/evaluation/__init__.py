"""Whether a training was worth it: the same scenes with and without its LoRA, judged."""
