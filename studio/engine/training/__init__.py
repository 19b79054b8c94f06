"""LoRA training: data, loop and export. Nothing here attaches to a network that is lent."""
