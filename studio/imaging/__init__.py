"""Pixels as Pillow and NumPy: the one way in, masks, crops, tiles. No torch."""
