"""Who wrote a caption, and where an image comes from: what a dataset's card says of it.

Knows: the two values. Does not know: where they are stored (storage/datasets/history.py), how the
card looks (storage/datasets/data_card.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.core.base import Spec


class Writer(Spec):
    """The author of a caption. `settings` are a model's remaining ones, in words."""

    by: Literal["hand", "model", "prompt", "file", "affix"] = Field(
        "hand",
        description="A person, a model, the prompt that an image was made from, or an added file; "
        "affix means that only a trigger word or other text was added to an existing caption.",
    )
    model: str = Field(
        "", max_length=200, description="The model's name; with its content hash where it is known."
    )
    instruction: str = Field("", max_length=4000, description="The instruction given to the model.")
    settings: str = Field("", max_length=4000, description="The model's other settings.")

    def __str__(self) -> str:
        match self.by:
            case "hand":
                return "by hand"
            case "prompt":
                return "the prompt it was made from"
            case "file":
                return "came with the images"
            case "affix":
                return "a trigger word was added"
        name = self.model or "a model"
        return f"{name} ({self.instruction})" if self.instruction else name


class Source(Spec):
    """The origin of an image. All fields empty: nobody has recorded it yet."""

    source: str = Field(
        "",
        max_length=2000,
        title="Source",
        description="The address or place the image came from.",
    )
    author: str = Field("", max_length=500, title="Author", description="Who made it.")
    licence: str = Field(
        "",
        max_length=500,
        title="Licence",
        description="The licence under which it may be used, such as CC BY 4.0.",
    )
    generated: bool = Field(False, title="Generated", description="Whether a model made it.")
    note: str = Field(
        "",
        max_length=2000,
        title="Note",
        description="Anything else, such as who gave their consent.",
    )


UNKNOWN_SOURCE = Source()
