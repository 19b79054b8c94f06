"""The studio: make pictures with Stable Diffusion and see what every setting does.

README describes the floors.
"""

__version__ = "0.1.0"
