"""Captions of images: a module for each kind of captioner, and the work that uses them."""
