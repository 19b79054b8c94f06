"""Every program whose images are recognised, in the order in which they are asked.

Knows: the order, which of several answers counts. Does not know: how any of them is read.
"""

from __future__ import annotations

from studio.core.generation.recipes import (
    civitai,
    comfyui,
    fooocus,
    invokeai,
    named_programs,
    novelai,
    other_programs,
    swarmui,
)
from studio.core.generation.recipes.a1111 import A1111
from studio.core.generation.recipes.foreign import clean_recipe
from studio.core.generation.recipes.own import STUDIO
from studio.core.generation.recipes.recipe import (
    ImageMetadata,
    NothingFound,
    Recipe,
    RecipeSource,
)

# The first that recognises a file reads it: those with marks of their own before ComfyUI's graph,
# by which some of them paint, and before A1111's text, which many others write too. Last come those
# that write no settings.
SOURCES: tuple[RecipeSource, ...] = (
    STUDIO,
    novelai.SOURCE,
    swarmui.SOURCE,
    fooocus.SOURCE,
    invokeai.SOURCE,
    civitai.SOURCE,
    *other_programs.SOURCES,
    comfyui.SOURCE,
    A1111,
    named_programs.SOURCE,
)


def read_recipe(metadata: ImageMetadata) -> Recipe:
    """Return what the first program says that recognises an image and can read it.

    Raises ValueError, with the sentence of the first that recognised it; NothingFound where none
    does.
    """
    reasons = []
    for source in SOURCES:
        if not source.recognises(metadata):
            continue
        try:
            return clean_recipe(source.read(metadata))
        except ValueError as error:
            reasons.append(f"made with {source.program}: {error}")
    if not reasons:
        raise NothingFound("it contains no settings.")
    raise ValueError(reasons[0])
