"""WHERE things are: disk and SQLite. No torch, no gradio."""
