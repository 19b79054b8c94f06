"""Every program whose images are recognised, in the order in which they are asked.

Knows: the order. Does not know: how any of them is read.
"""

from __future__ import annotations

from studio.core.generation.recipes.recipe import RecipeSource

# The first that recognises a file reads it: those with marks of their own before A1111's text,
# which many others write too.
SOURCES: tuple[RecipeSource, ...] = ()
