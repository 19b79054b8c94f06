"""The textual inversions of the library: files, pickles, contents.

Knows: which there are, what their headers say, their hashes. Does not know: which of them a prompt
names (embedding_index.py), torch, where the files lie (shelf.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from studio.core.families.registry import FAMILIES
from studio.core.generation.embeddings import MentionFinder
from studio.core.generation.request import GenerationRequest
from studio.errors import BadFile, StudioError
from studio.storage.content_hashes import ContentHashes
from studio.storage.downloads.pickle_names import read_words
from studio.storage.models.embedding_file import FileEmbedding, read_embeddings
from studio.storage.models.embedding_index import EmbeddingIndex, EmbeddingInfo, list_texts
from studio.storage.models.model_configs import read_config
from studio.storage.models.model_info import ModelInfo
from studio.storage.models.names import list_ends
from studio.storage.models.pickles import Pickles
from studio.storage.models.shelf import Shelf, ShelfFile
from studio.storage.odd_files import explain_odd_file

MAX_COMPARED = 200  # embeddings whose files are hashed to find one under another name


class Embeddings:
    """The embeddings of a home. Every call looks at the disk."""

    def __init__(self, shelf: Shelf, pickles: Pickles, hashes: ContentHashes) -> None:
        self._shelf = shelf
        self._pickles = pickles
        self._hashes = hashes
        self._cache: dict[Path, tuple[tuple[int, int], list[FileEmbedding] | str]] = {}
        self._hints: dict[Path, tuple[tuple[int, int], tuple[str, ...]]] = {}

    def list_embeddings(self) -> list[EmbeddingInfo]:
        """List all by name: those that cannot be used, and pickles that were not read yet, too."""
        infos = []
        for file in self._shelf.list_files("embedding"):
            infos += self._describe(file)
        for name, path in self._shelf.list_pickles():
            if not self._pickles.is_embedding(path) or self._pickles.get_converted(path):
                continue
            if self._pickles.is_unread(path):
                infos.append(EmbeddingInfo(name, path, path, hints=self._read_hints(path)))
            else:
                problem = self._pickles.get_problem(path)
                infos.append(EmbeddingInfo(name, path, path, problem=problem))
        return sorted(infos, key=lambda info: info.name.casefold())

    def build_index(
        self, widths: tuple[int, ...], model_name: str, bundled: Sequence[EmbeddingInfo] = ()
    ) -> EmbeddingIndex:
        """Return the embeddings as they are now, as prompts for a model see them.

        Args:
            widths: Numbers of a token's vector, for each of the model's text encoders.
            model_name: For sentences.
            bundled: Further ones, which come before those of the home.
        """
        names = {info.name for info in bundled}
        own = [info for info in self.list_embeddings() if info.name not in names]
        return EmbeddingIndex([*own, *bundled], widths, model_name)

    def read_named_pickles(self, requests: Iterable[GenerationRequest]) -> None:
        """Read the pickles that were not read yet and that the prompts of requests may name.

        A prompt may name one by its file or by the word inside. What is wrong with one of them is
        said by `resolve`.

        Raises:
            DiskError: The home does not take what has to be written.
        """
        texts = list(
            {
                text: None
                for request in requests
                for field_texts in list_texts(request)
                for text in field_texts
            }
        )
        # Again, since a text of one that turned out to be no word may have hidden another's name.
        read: set[Path] = set()
        while named := set(self._find_unread(texts)) - read:
            self._pickles.convert(sorted(named))
            read |= named

    def _find_unread(self, texts: Iterable[str]) -> list[Path]:
        """Return the pickles that were not read yet and that texts may name."""
        paths: dict[str, list[Path]] = {}
        for name, path in self._list_unread():
            for spelling in (*list_ends(name), *self._read_hints(path)):
                paths.setdefault(spelling.casefold(), []).append(path)
        finder = MentionFinder(paths)
        return [
            path
            for text in texts
            for mention in finder.find(text)
            for path in paths.get(mention.name, ())
        ]

    def _read_hints(self, path: Path) -> tuple[str, ...]:
        """Return the texts in a pickle, which is not opened for that."""
        try:
            stamp = _stamp(path)
        except OSError:
            return ()
        if self._hints.get(path, (None,))[0] != stamp:
            self._hints[path] = (stamp, tuple(sorted(read_words(path))))
        return self._hints[path][1]

    def compare_hashes(self, hashes: Mapping[str, str]) -> list[str]:
        """Return a sentence for each embedding of an image that is not here, or is another here.

        Args:
            hashes: The beginning of the file's sha256, by the name in the image's prompts.
        """
        infos = self.list_embeddings() if hashes else []
        notes = []
        for name, expected in list(hashes.items())[:MAX_COMPARED]:
            named = [info for info in infos if _is_called(info, name)]
            if any(self._has_hash(info, expected) for info in named):
                continue
            same = [info for info in infos[:MAX_COMPARED] if self._has_hash(info, expected)]
            if same:
                notes.append(
                    f"The embedding {name} of that image is called {same[0].name} here; write "
                    "that in the prompt."
                )
            elif named:
                notes.append(
                    f"The embedding {named[0].name} here is not the file that the image was made "
                    "with; it will look different."
                )
            else:
                notes.append(
                    f"The embedding {name} is not here; its name stays in the prompt as words."
                )
        return notes

    def _has_hash(self, info: EmbeddingInfo, beginning: str) -> bool:
        return self.get_content_hash(info).startswith(beginning.lower())

    def get_content_hash(self, info: EmbeddingInfo) -> str:
        """Return the sha256 of an embedding's file, as other programs and sites show it."""
        return self._hashes.get_hash(info.path, [info.path], info.path.parent)

    def find_problem(self, file: ShelfFile) -> str:
        """Return why a file of embeddings cannot be used, as the end of a sentence; "" if it can.

        Args:
            file: One of the shelf's of that kind.
        """
        return next((info.problem for info in self._describe(file) if info.problem), "")

    def _list_unread(self) -> list[tuple[str, Path]]:
        return [
            (name, path)
            for name, path in self._shelf.list_pickles()
            if self._pickles.is_embedding(path) and self._pickles.is_unread(path)
        ]

    def _describe(self, file: ShelfFile) -> list[EmbeddingInfo]:
        """Return the embeddings of a file; of one that cannot be used why."""
        weights_path = file.model_file.weights_path
        problem = file.model_file.problem
        content = problem or self._read(weights_path)
        if isinstance(content, str):
            return [EmbeddingInfo(file.name, file.path, weights_path, problem=content)]
        return [
            EmbeddingInfo(
                file.name if len(content) == 1 else f"{file.name}/{embedding.word}",
                file.path,
                weights_path,
                word=embedding.word,
                tensors=embedding.tensors,
                widths=embedding.widths,
                num_vectors=embedding.num_vectors,
            )
            for embedding in content
        ]

    def _read(self, path: Path) -> list[FileEmbedding] | str:
        """Read a file's header, or take it from the cache; return the problem if there is one."""
        try:
            with explain_odd_file(path, ""):
                stamp = _stamp(path)
                if self._cache.get(path, (None,))[0] != stamp:
                    self._cache[path] = (stamp, _read_or_explain(path))
                return self._cache[path][1]
        except StudioError as error:
            return str(error)


def _stamp(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_mtime_ns, status.st_size


def _is_called(info: EmbeddingInfo, name: str) -> bool:
    return name.casefold() in (spelling.casefold() for spelling in info.spellings)


def build_info(embedding: FileEmbedding, path: Path) -> EmbeddingInfo:
    """Return an embedding that another file carries, under its own word."""
    return EmbeddingInfo(
        embedding.word,
        path,
        path,
        word=embedding.word,
        tensors=embedding.tensors,
        widths=embedding.widths,
        num_vectors=embedding.num_vectors,
    )


def read_text_widths(info: ModelInfo) -> tuple[int, ...]:
    """Return the numbers of a token's vector, for each text encoder of a model.

    Of one whose config cannot be read, or that is not there yet, the family's released models
    count.
    """
    family = FAMILIES[info.family]
    widths = []
    for index, part in enumerate(family.text_encoders):
        width = family.shape.text_encoders[index].hidden_size if family.shape else 0
        with suppress(BadFile):
            width = read_config(info, part.encoder).get("hidden_size", width)
        widths.append(width if isinstance(width, int) else 0)
    return tuple(widths)


def _read_or_explain(path: Path) -> list[FileEmbedding] | str:
    try:
        return read_embeddings(path)
    except BadFile as error:
        return str(error).rstrip(".")
