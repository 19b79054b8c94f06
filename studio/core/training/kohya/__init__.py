"""kohya's settings, read: TOML and JSON of sd-scripts and its GUI, with a sentence on every key."""
