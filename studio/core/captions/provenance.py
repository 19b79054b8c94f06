"""Who wrote a caption, and where a picture comes from: what a dataset's card says of it.

Knows: the two values. Does not know: where they are kept (storage/datasets/history.py), how the card looks (storage/datasets/data_card.py).
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from studio.core.base import Value


class Writer(Value):
    """Who wrote a caption. `settings` are a model's further ones, in words."""

    by: Literal["hand", "model", "prompt", "file"] = Field(
        "hand",
        description="A person, a model, the prompt that a picture was made from, or a file that was brought.",
    )
    model: str = Field(
        "", max_length=200, description="The model's name; with its content hash where it is known."
    )
    instruction: str = Field("", max_length=4000, description="What the model was told to do.")
    settings: str = Field("", max_length=4000, description="Its further settings.")

    def __str__(self) -> str:
        told = f" ({self.instruction})" if self.instruction else ""
        return {
            "hand": "by hand",
            "prompt": "the prompt it was made from",
            "file": "came with the pictures",
        }.get(self.by, f"{self.model or 'a model'}{told}")


class Source(Value):
    """Where a picture comes from. All empty: nobody has said so yet."""

    source: str = Field(
        "",
        max_length=2000,
        title="Source",
        description="Address or place the picture was taken from.",
    )
    author: str = Field("", max_length=500, title="Author", description="Who made it.")
    licence: str = Field(
        "",
        max_length=500,
        title="Licence",
        description="Under which it may be used, such as CC BY 4.0.",
    )
    generated: bool = Field(False, title="Generated", description="Whether a model made it.")
    note: str = Field(
        "",
        max_length=2000,
        title="Note",
        description="Anything else, such as who gave their consent.",
    )


NOBODY = Source()
