"""Enlarging an image by a network that somebody trained for it, or by plain interpolation."""
