"""WHAT can be asked for: frozen values and pure functions. No files, no torch, no gradio."""
