"""A training: its settings, their rules, buckets, steps, which layers a LoRA trains, how it is judged."""
