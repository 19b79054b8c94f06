"""Models on a device: loading, residency, prompts and schedulers."""
