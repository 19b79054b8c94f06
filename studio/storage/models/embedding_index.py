"""Which of the library's textual inversions the prompts of a model name, and what is said of them.

Knows: names, which go with a model, what is said where one does not. Does not know: how names stand
in a text (core/generation/embeddings.py), which files there are (embeddings.py), torch.

An embedding goes by the name of its file, with or without its folder, in any case, and by the word
that the file gives it. A plain word that names one for another family stays a word, as in A1111,
and that is said; behind `embedding:` it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from studio.core.families.registry import FAMILIES
from studio.core.generation.embeddings import MentionFinder
from studio.core.generation.prompt_plans import list_wordings
from studio.core.generation.prompts.plan import Wording
from studio.core.generation.request import GenerationRequest
from studio.errors import list_alternatives, quote
from studio.storage.models.names import list_ends

PROMPT_FIELDS = ("prompt", "negative_prompt")
FAMILY_BY_WIDTHS = {
    tuple(encoder.hidden_size for encoder in family.shape.text_encoders): family.title
    for family in FAMILIES.values()
    if family.shape
}


@dataclass(frozen=True)
class EmbeddingInfo:
    """An embedding of the library.

    Attributes:
        name: What it is called: the file's name in its folder without the ending; one of several
            in a file with its word behind that.
        word: What the file itself calls it; empty if it does not.
        path: The file.
        weights_path: The file to read its tensors from: of a pickle what it was converted to.
        tensors: The tensor's name for each text encoder.
        widths: Numbers of a vector, for each text encoder; empty of a pickle that was not read yet.
        num_vectors: How many it has.
        problem: Why it cannot be used, as the end of a sentence; empty if nothing is wrong.
        hints: Texts in a pickle that was not read yet: one of them may be its word.
    """

    name: str
    path: Path
    weights_path: Path
    word: str = ""
    tensors: tuple[str, ...] = ()
    widths: tuple[int, ...] = ()
    num_vectors: int = 0
    problem: str = ""
    hints: tuple[str, ...] = ()

    @property
    def short_name(self) -> str:
        """Its name without folders, as A1111 has it."""
        return self.name.rpartition("/")[2]

    @property
    def family_title(self) -> str:
        """What it was made for, for people."""
        if self.widths in FAMILY_BY_WIDTHS:
            return FAMILY_BY_WIDTHS[self.widths]
        return f"models whose prompts are {' + '.join(map(str, self.widths))} wide"

    @property
    def spellings(self) -> tuple[str, ...]:
        """The names that a prompt may call it, the most exact first."""
        names = (self.name, self.word, *list_ends(self.name))
        return tuple(dict.fromkeys(name for name in names if name))


@dataclass
class EmbeddingUses:
    """What the prompts of requests name.

    Attributes:
        by_name: The embeddings that take part, by the name that stands for each in the prompts.
        notes: A sentence for each thing that somebody may not expect.
        faults: A sentence for each thing that keeps the requests from being done.
    """

    by_name: dict[str, EmbeddingInfo] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


class EmbeddingIndex:
    """Embeddings as prompts for one model see them."""

    def __init__(
        self, infos: Sequence[EmbeddingInfo], widths: tuple[int, ...], model_name: str
    ) -> None:
        # One that was not read yet may fit; whoever computes has it read first.
        fitting: list[EmbeddingInfo] = []
        others: list[EmbeddingInfo] = []
        for info in infos:
            fits = not info.problem and info.widths in (widths, ())
            (fitting if fits else others).append(info)
        self.infos = tuple(infos)
        self.has_unread = any(not info.widths and not info.problem for info in infos)
        self._model_name = model_name
        self._by_name, self._ambiguous = _index_names(fitting)
        self._others_by_name, _ = _index_names(others)
        self._finder = MentionFinder(self._by_name)
        self._others_finder = MentionFinder(self._others_by_name)
        self._hints_finder = MentionFinder(hint for info in infos for hint in info.hints)

    def list_fitting(self) -> list[tuple[str, EmbeddingInfo]]:
        """List the embeddings that go with the model, each with its shortest plain name."""
        names: dict[str, str] = {}
        for spelling, info in self._by_name.items():
            if self._by_name.get(info.short_name) is info:
                spelling = info.short_name
            names.setdefault(info.name, spelling)
        return [(spelling, self._by_name[name]) for name, spelling in names.items()]

    def resolve(self, requests: Iterable[GenerationRequest]) -> EmbeddingUses:
        """Find what the prompts of requests name."""
        texts = {
            (name, text): None
            for request in requests
            for name, field_texts in zip(PROMPT_FIELDS, list_texts(request))
            for text in field_texts
        }
        uses = EmbeddingUses()
        for field_name, text in texts:
            for piece in self._finder.split(text):
                if isinstance(piece, str):
                    self._note_others(piece, uses)
                elif piece.is_known:
                    uses.by_name[piece.name] = self._by_name[piece.name]
                    if piece.name in self._ambiguous:
                        uses.notes.append(_write_choice(piece.name, self._ambiguous[piece.name]))
                elif not self._may_be_unread(piece.name):
                    title = GenerationRequest.model_fields[field_name].title
                    uses.faults.append(f"{title}: {self._explain_missing(piece.name)}")
        uses.notes = list(dict.fromkeys(uses.notes))
        uses.faults = list(dict.fromkeys(uses.faults))
        return uses

    def _may_be_unread(self, name: str) -> bool:
        """Whether a pickle may call itself so; whoever computes reads it first, and knows."""
        return any(mention.is_known for mention in self._hints_finder.find(f"embedding:{name}"))

    def _note_others(self, text: str, uses: EmbeddingUses) -> None:
        for mention in self._others_finder.find(text):
            info = self._others_by_name[mention.name]
            uses.notes.append(_write_note(info, self._model_name))

    def _explain_missing(self, name: str) -> str:
        (mention,) = self._others_finder.find(f"embedding:{name}")[:1]
        info = self._others_by_name.get(mention.name) if mention.is_known else None
        return _write_fault(name, info, self._model_name, list(self._by_name))


def list_texts(request: GenerationRequest) -> tuple[list[str], list[str]]:
    """Return what is tokenised of both prompts, without brackets, weights and tags.

    These are the stretches that are read at any step of any pass.
    """
    positive, negative = list_wordings(request)
    return _list_fragments(positive), _list_fragments(negative)


def _list_fragments(wordings: Iterable[Wording]) -> list[str]:
    texts = (fragment.text for wording in wordings for fragment in wording.fragments)
    return [text for text in dict.fromkeys(texts) if text.strip()]


def _index_names(
    infos: list[EmbeddingInfo],
) -> tuple[dict[str, EmbeddingInfo], dict[str, list[str]]]:
    """Return what each name stands for, and of names for several which those are.

    A whole name stands for its own embedding, a word or a short one for the first of that name.
    """
    by_name = {info.name: info for info in infos}
    folded = {name.casefold() for name in by_name}
    shared: dict[str, list[EmbeddingInfo]] = {}
    for info in infos:
        for spelling in info.spellings[1:]:
            if spelling.casefold() not in folded:
                shared.setdefault(spelling.casefold(), []).append(info)
    ambiguous = {}
    for folded_name, same in shared.items():
        spelling = next(name for name in same[0].spellings[1:] if name.casefold() == folded_name)
        by_name[spelling] = same[0]
        if len(same) > 1:
            ambiguous[spelling] = [info.name for info in same]
    return by_name, ambiguous


def _write_note(info: EmbeddingInfo, model_name: str) -> str:
    if info.problem:
        return f"The embedding {info.name} cannot be used: it {info.problem}. It is read as words."
    return (
        f"The embedding {info.name} is for {info.family_title}, but {model_name} is not; it is "
        "read as plain words."
    )


def _write_choice(name: str, names: list[str]) -> str:
    return (
        f"{name} is the embedding {names[0]}; there {'is' if len(names) == 2 else 'are'} also "
        f"{', '.join(names[1:5])}. Write embedding:{names[1]} for another."
    )


def _write_fault(name: str, info: EmbeddingInfo | None, model_name: str, names: list[str]) -> str:
    if info is None:
        cut_off = _find_bracketed(name, names)
        if cut_off:
            return (
                f"there is no embedding {quote(name)} in the library. Parentheses in a name need "
                f"a backslash before them; write embedding:{_escape_brackets(cut_off)} for "
                f"{cut_off}."
            )
        matches = [other for other in names if name.casefold() in other.casefold()]
        return (
            f"there is no embedding {quote(name)} in the library; available: "
            f"{list_alternatives(matches[:3], names)}."
        )
    if info.problem:
        return f"the embedding {info.name} cannot be used: it {info.problem}."
    return (
        f"the embedding {info.name} is for {info.family_title}, but {model_name} is not; remove "
        "it, or choose another model."
    )


def _find_bracketed(beginning: str, names: list[str]) -> str:
    """Return the name that a prompt cut off at a bracket, which gives weights there; or nothing."""
    folded = beginning.casefold()
    for name in names:
        rest = name[len(beginning) :].lstrip()
        if name.casefold().startswith(folded) and rest.startswith(("(", "[", ")", "]")):
            return name
    return ""


def _escape_brackets(name: str) -> str:
    return re.sub(r"([()\[\]\\])", r"\\\1", name)
