"""The studio: make pictures with Stable Diffusion and see what every setting does. The floors are described in README."""

__version__ = "0.1.0"
