"""A training run: its settings and their rules, buckets, steps, LoRA targets, evaluation."""
