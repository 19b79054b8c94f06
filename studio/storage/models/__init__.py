"""Model folders, LoRA files and tokenizers, read by their headers."""
