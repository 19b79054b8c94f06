"""What a CLIP model can be asked about a dataset.

Knows: the questions and the fields that each of them needs.
Does not know: how a question is answered (engine/clip_search), which models are installed.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import field_validator, model_validator

from studio.core.base import Spec, spec_field
from studio.core.catalog import DEFAULT_CLIP

Question = Literal["search", "classes", "duplicates", "fit"]
OTHER_CLASS = "other"  # the class of images that belong to none of the named ones


class ClipQuerySpec(Spec):
    """A question about the images of a dataset."""

    dataset: str = spec_field(
        ...,
        title="Dataset",
        min_length=1,
        max_length=200,
        help="The name of a folder of images in home/datasets.",
    )
    question: Question = spec_field(
        "search",
        title="Question",
        help="search: images like some words or an image; classes: which of some labels each gets; "
        "duplicates: which are nearly the same; fit: how well each caption matches its image.",
    )
    clip: str = spec_field(
        DEFAULT_CLIP,
        title="CLIP model",
        min_length=1,
        max_length=200,
        help="pocket (built in) or the name of a folder in home/models.",
    )
    pictures: tuple[str, ...] = spec_field(
        (),
        title="Images",
        max_length=100_000,
        help="Only these, by file name. Empty is all.",
    )
    words: str = spec_field(
        "", title="Words", max_length=2000, help="What to search for: a red boat."
    )
    like: str = spec_field(
        "",
        title="Like",
        max_length=500,
        help="Or find images similar to this one: a file name in the dataset, or the sha256 of an "
        "image in home/inputs.",
    )
    classes: tuple[str, ...] = spec_field(
        (),
        title="Labels",
        max_length=1000,
        help="moon / sun / other: each image gets one of these; other is for the rest.",
    )
    limit: int = spec_field(
        50, title="Maximum results", ge=1, le=10_000, help="How many images a search returns."
    )

    @field_validator("classes", mode="before")
    @classmethod
    def _split_classes(cls, value: Any) -> Any:
        """Accept a list, or one text with slashes between the classes; drop duplicates."""
        parts = value.split("/") if isinstance(value, str) else value
        if not isinstance(parts, (list, tuple)):
            return value
        if not all(isinstance(part, str) for part in parts):
            return value
        names = [" ".join(part.split()) for part in parts]
        return tuple(dict.fromkeys(name for name in names if name))

    @model_validator(mode="after")
    def _validate_combination(self) -> Self:
        faults = []
        if self.question == "search" and bool(self.words.strip()) == bool(self.like):
            faults.append("Words: enter words or choose an image to search by, but not both.")
        if self.question == "classes" and not self._has_enough_classes():
            faults.append("Labels: enter at least two, separated by /, such as moon / sun / other.")
        for field, title, question in (
            ("words", "Words", "search"),
            ("like", "Like", "search"),
            ("classes", "Labels", "classes"),
        ):
            if getattr(self, field) and self.question != question:
                faults.append(
                    f"{title}: used only when Question is {question} (you chose {self.question}); "
                    "leave it empty."
                )
        if faults:
            raise ValueError("\n".join(faults))
        return self

    def _has_enough_classes(self) -> bool:
        """Two classes, of which one may be "other"."""
        named = [name for name in self.classes if name.lower() != OTHER_CLASS]
        has_other = any(name.lower() == OTHER_CLASS for name in self.classes)
        return len(named) >= (1 if has_other else 2)
