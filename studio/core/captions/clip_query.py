"""What a CLIP model can be asked about a dataset.

Knows: the questions and what each needs. Does not know: how they are answered, which models there are.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from studio.core.base import Value, setting
from studio.core.catalog import DEFAULT_CLIP

Question = Literal["search", "classes", "duplicates", "fit"]
OTHER = "other"  # the class of what is none of the others


class SeeSpec(Value):
    """A question about the pictures of a dataset."""

    dataset: str = setting(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="Whose pictures: the name of a folder in home/datasets.",
    )
    question: Question = setting(
        "search",
        title="Question",
        help="search: which pictures are like words or a picture; classes: which of some words each is; "
        "duplicates: which are nearly the same; fit: how well each caption fits its picture.",
    )
    clip: str = setting(
        DEFAULT_CLIP,
        title="CLIP model",
        min_length=1,
        max_length=200,
        help="Who looks: pocket (the embedded one) or the name of a folder in home/models.",
    )
    pictures: tuple[str, ...] = setting(
        (),
        title="Pictures",
        max_length=100_000,
        help="Only these, by their names in the folder; empty is all.",
    )
    words: str = setting("", title="Words", max_length=2000, help="What to search for: a red boat.")
    like: str = setting(
        "",
        title="Like",
        max_length=500,
        help="Or a picture that others are to be like: the name of one of the "
        "dataset, or the sha256 of one in home/inputs.",
    )
    classes: tuple[str, ...] = setting(
        (),
        title="Classes",
        max_length=1000,
        help="moon / sun / other: each picture is one of these; other is what is none of them.",
    )
    limit: int = setting(
        50, title="At most", ge=1, le=10_000, help="How many pictures a search gives."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """A list, or one text with / between."""
        parts = given.split("/") if isinstance(given, str) else given
        if isinstance(parts, (list, tuple)) and all(isinstance(part, str) for part in parts):
            return tuple(
                dict.fromkeys(cleaned for part in parts if (cleaned := " ".join(part.split())))
            )
        return given

    @model_validator(mode="after")
    def _goes_together(self) -> Self:
        faults = []
        if self.question == "search" and bool(self.words.strip()) == bool(self.like):
            faults.append(
                "Words: a search needs either words or a picture that others are to be like."
            )
        if self.question == "classes" and len(
            [name for name in self.classes if name.lower() != OTHER]
        ) < 1 + (OTHER not in map(str.lower, self.classes)):
            faults.append("Classes: name at least two, with / between, such as moon / sun / other.")
        for field, title, needed in (
            ("words", "Words", "search"),
            ("like", "Like", "search"),
            ("classes", "Classes", "classes"),
        ):
            if getattr(self, field) and self.question != needed:
                faults.append(
                    f"{title}: is only for the question {needed} (not for {self.question}); leave it empty."
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self
