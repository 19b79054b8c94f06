"""Training a LoRA: data, loop, export. Nothing here attaches to a network that is lent."""
