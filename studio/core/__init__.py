"""WHAT can be asked: frozen values and pure rules. No files, no torch, no gradio."""
