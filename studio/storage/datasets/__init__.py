"""Folders of images with captions: what is in them, edits with undo, imports."""
