"""The library as people see it: every model, LoRA and other file once, and what is known of it.

Knows: how the lists of the library become one, search and filters, what a guest is not told, who
may change it. Does not know: how it looks; what a file is (storage/models/).
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from studio.core.families.registry import FAMILIES
from studio.errors import BadFile, quote
from studio.services.visitor import Visitor
from studio.storage import atomic
from studio.storage.home import Home
from studio.storage.models.favourites import Favourites
from studio.storage.models.folder_layouts import PLAIN_TITLE
from studio.storage.models.header_rules import FAMILY_TITLES, KIND_TITLES
from studio.storage.models.library import MODEL_KINDS, LoraInfo, ModelInfo, Unusable
from studio.storage.models.model_file import (
    DTYPE_TITLES,
    WEIGHTS_SUFFIXES,
    explain_no_model,
    identify_file,
)
from studio.storage.models.referenced_folders import ReferencedFolder, check_path_text
from studio.storage.models.roots import Root
from studio.storage.models.shelf import ShelfFile
from studio.storage.models.sidecars import Sidecar
from studio.storage.odd_files import make_printable

# What can be used, in the order of the page; models are folders and single files alike.
KIND_NAMES = {
    "model": "Models",
    "lora": "LoRAs",
    "vae": "VAEs",
    "embedding": "Embeddings",
    "upscaler": "Upscalers",
    "text encoder": "Text encoders",
}
# What else people write when they look for a family.
SEARCH_WORDS = {
    "sd1": "sd1 sd1.4 sd1.5 sd 1.4 1.5",
    "sd2": "sd2 sd2.0 sd2.1 sd 2.0 2.1",
    "sdxl": "sdxl sd-xl sd xl 1.0",
}
_NETWORK_LABELS = {"unet": "picture", "text_encoder": "text", "text_encoder_2": "text"}


@dataclass
class CatalogEntry:
    """One thing of the library.

    Attributes:
        kind: One of KIND_NAMES; of what cannot be used, what it is.
        name: What requests call it.
        path: The file or folder.
        place: Where it lies, as anybody may be told.
        family: Name of its family; empty where that is not known.
        facts: What else is known of it, in a few words each.
        size_bytes: Of all its files; 0 where that is not known.
        trigger_words: Words that call what it learned.
        tags: Of the captions that it was trained on, with their counts.
        title: What its author calls it.
        base: What it was made from or for.
        notes: A description.
        is_favourite: Whether somebody marked it.
        problem: Why it cannot be used; empty if it can.
        file: Its path in the home, where it can be moved to another folder of it.
        move_to: That folder.
        warnings: Sentences that its owner should read.
        usual_weight: How strong a LoRA is put to use.
    """

    kind: str
    name: str
    path: Path
    place: str = ""
    family: str = ""
    facts: tuple[str, ...] = ()
    size_bytes: int = 0
    trigger_words: tuple[str, ...] = ()
    tags: tuple[tuple[str, int], ...] = ()
    title: str = ""
    base: str = ""
    notes: str = ""
    is_favourite: bool = False
    problem: str = ""
    file: str = ""
    move_to: str = ""
    warnings: tuple[str, ...] = ()
    usual_weight: float = 1.0

    @property
    def key(self) -> str:
        """What it is marked by as a favourite."""
        return f"{self.kind}/{self.name}"

    @property
    def family_title(self) -> str:
        """The family's name for people; empty where it is not known."""
        if self.family in FAMILIES:
            return FAMILIES[self.family].title
        return FAMILY_TITLES.get(self.family, "")


@dataclass(frozen=True)
class CatalogFilter:
    """What somebody looks for; empty fields let everything through.

    Attributes:
        words: All of them have to occur in a name, title, family, kind, base or trigger word.
        kind: One of KIND_NAMES.
        family: Name of a family.
        favourites_only: Whether only favourites are wanted.
    """

    words: str = ""
    kind: str = ""
    family: str = ""
    favourites_only: bool = False

    def select(self, entries: Iterable[CatalogEntry]) -> list[CatalogEntry]:
        """Return the entries that fit."""
        words = self.words.casefold().split()
        return [
            entry
            for entry in entries
            if self.kind in ("", entry.kind)
            and self.family in ("", entry.family)
            and (entry.is_favourite or not self.favourites_only)
            and (not words or _has_words(entry, words))
        ]


class ModelCatalog:
    """The library of one home as people see it; any thread may call."""

    def __init__(self, home: Home) -> None:
        self.home = home
        self._favourites = Favourites(home.settings)

    def list_entries(self, visitor: Visitor) -> list[CatalogEntry]:
        """List everything: first what can be used, favourites first, then what cannot."""
        library = self.home.library
        scan = library.shelf.scan()
        shelf_files = {file.path: file for file in scan.files}
        entries: dict[Path, CatalogEntry] = {}
        unusable: list[Unusable] = []
        for model in library.scan_models(scan):
            if isinstance(model, Unusable):
                unusable.append(model)
            else:
                entries[model.path] = self._describe_model(model)
        for lora in library.list_loras(scan):
            if isinstance(lora, Unusable):
                unusable.append(lora)
            else:
                entries[lora.path] = self._describe_lora(lora, visitor)
        said = {item.path for item in unusable}
        for file in scan.files:
            is_lora = file.model_file.kind == "lora" and not file.model_file.problem
            if file.path not in entries and not is_lora:
                entry = self._describe_file(file)
                if not entry.problem or file.path not in said:
                    entries[file.path] = entry
        for scanned, root, sentence in scan.unreadable:
            name = root.list_names(scanned.relative)[0]
            unusable.append(Unusable(name, scanned.path, sentence))
        for item in unusable:
            self._add_unusable(entries, item, shelf_files)
        places = self._list_roots()
        favourites = self._favourites.load()
        for entry in entries.values():
            entry.place = _describe_place(entry.path, places, visitor)
            entry.is_favourite = entry.key in favourites
        finished = list(entries.values())
        order = {kind: number for number, kind in enumerate(KIND_NAMES)}
        finished.sort(
            key=lambda entry: (
                bool(entry.problem),
                not entry.is_favourite,
                order.get(entry.kind, len(order)),
                entry.name.casefold(),
            )
        )
        return finished

    def list_folders(self) -> list[ReferencedFolder]:
        """List the folders elsewhere whose files are used."""
        return self.home.library.folders.list_folders()

    def add_path(self, path_text: str, visitor: Visitor, name: str = "") -> str:
        """Use a folder's files where they lie, or one file by a link to it.

        Args:
            path_text: The folder or file on this machine.
            visitor: Who asks.
            name: What names of a folder's files are to begin with; empty is chosen.

        Returns:
            One sentence that says what is used now.

        Raises:
            NotAllowed: For guests.
            BadFile: What `ReferencedFolders.add` raises, or the file cannot be used.
        """
        visitor.require_owner("Adding folders and files")
        text = check_path_text(path_text)
        path = Path(os.path.abspath(os.path.expanduser(text)))
        if path.suffix.lower() in WEIGHTS_SUFFIXES and path.is_file():
            target = self._link_file(path)
            return f"{target.stem} is used in place, through a link in {target.parent.name}/."
        folder = self.home.library.folders.add(text, name)
        what = "a plain folder" if folder.layout == PLAIN_TITLE else folder.layout
        sentences = [
            f"{folder.path} was added as {what}; its files are used in place, and their names "
            f"begin with {folder.name}/.",
            self._count_found(folder.name),
            folder.problem,
        ]
        return " ".join(filter(None, sentences))

    def _count_found(self, folder_name: str) -> str:
        """Return in a sentence how much of each kind lies in a folder."""
        scan = self.home.library.shelf.scan()
        numbers = Counter(
            "model" if file.model_file.kind in MODEL_KINDS else file.model_file.kind
            for file in scan.files
            if file.root.title.partition("/")[0] == folder_name
        )
        numbers["model"] += sum(
            root.title.partition("/")[0] == folder_name for _, root in scan.model_folders.values()
        )
        found = [
            f"{numbers[kind]} {title if numbers[kind] > 1 else title.removesuffix('s')}"
            for kind, title in KIND_NAMES.items()
            if numbers[kind]
        ]
        if self.home.library.shelf.index.num_waiting:
            found.append("more to look at")
        return f"Found: {', '.join(found)}." if found else "No models were found in it yet."

    def remove_folder(self, name: str, visitor: Visitor) -> ReferencedFolder:
        """Use a folder's files no longer. Raises NotAllowed for guests, BadFile."""
        visitor.require_owner("Removing folders")
        return self.home.library.folders.remove(name)

    def toggle_favourite(self, key: str, visitor: Visitor) -> bool:
        """Mark a favourite, or no longer; return whether it is one now. Raises NotAllowed."""
        visitor.require_owner("Marking favourites")
        if key not in {entry.key for entry in self.list_entries(visitor)}:
            raise BadFile(f"{quote(key.partition('/')[2])} is no longer in the library.")
        return self._favourites.toggle(key)

    def add_file(self, source: Path, name: str, visitor: Visitor) -> Path:
        """Take a file into the folder of the home for its kind, which its header says.

        Args:
            source: Where it lies now.
            name: The file name that its owner gave it.
            visitor: Who asks.

        Returns:
            Where it lies now.

        Raises:
            NotAllowed: For guests.
            BadFile: The studio has no use for it, or there is one of this name already.
        """
        visitor.require_owner("Adding files")
        library = self.home.library
        if Path(name).suffix.lower() not in WEIGHTS_SUFFIXES:
            raise BadFile(
                f"{quote(name)} is not a weights file; those end in .safetensors, .pt or .pth."
            )
        identified = replace(identify_file(source), path=Path(name))
        if identified.kind == "lora" and not identified.problem:
            return library.add_lora(source, name).path
        target = self._choose_target(identified, name)
        try:
            atomic.transfer_file(source, target)
        except FileExistsError:
            raise _name_taken(target) from None
        return target

    def _link_file(self, path: Path) -> Path:
        """Make a link in the home to a file elsewhere; return it."""
        home = Path(os.path.realpath(self.home.settings.home))
        if Path(os.path.realpath(path)).is_relative_to(home):
            raise BadFile(f"{path.name} is already in the studio's own folder.")
        target = self._choose_target(identify_file(path), path.name)
        try:
            target.symlink_to(path)
        except FileExistsError:
            raise _name_taken(target) from None
        except OSError as error:
            raise BadFile(
                f"No link to {path.name} could be made ({error.strerror}); add its folder instead."
            ) from None
        return target

    def _choose_target(self, identified: Any, name: str) -> Path:
        """Return where a file of the home is to lie. Raises BadFile where it is of no use."""
        if identified.problem or not identified.folder:
            raise BadFile(identified.sentence)
        suffix = Path(name).suffix.lower()
        file_name = f"{atomic.safe_name(Path(name).stem)}{suffix}"
        target: Path = self.home.settings.home / identified.folder / file_name
        if os.path.lexists(target):
            raise _name_taken(target)
        return target

    def _describe_model(self, model: ModelInfo) -> CatalogEntry:
        facts = [f"{model.native_size} px", model.dtype, model.prediction_type]
        if model.is_inpainting:
            facts.append("inpainting")
        misplaced = self._find_way_out(model.path) if model.is_file else None
        warnings = list(model.notes)
        if model.lacks_only_vae:
            warnings.insert(0, f"Can be used once it has a VAE: {model.missing['vae']}")
        return self._add_sidecar(
            CatalogEntry(
                "model",
                model.name,
                model.path,
                family=model.family,
                facts=tuple(facts),
                size_bytes=model.size_bytes,
                # Listed among what cannot be used, as long as nobody says which part it gets; a
                # request can say which VAE, and nothing else.
                problem="" if model.lacks_only_vae else _join_sentences(model.missing.values()),
                file=misplaced.file if misplaced else "",
                move_to=misplaced.move_to if misplaced else "",
                warnings=tuple(warnings),
            )
        )

    def _find_way_out(self, path: Path) -> Unusable | None:
        """Return where a file belongs that works in a wrong folder of the home; else None."""
        settings = self.home.settings
        if path.is_relative_to(settings.models) or not path.is_relative_to(settings.home):
            return None
        return self.home.library.describe_file(path)

    def _describe_lora(self, lora: LoraInfo, visitor: Visitor) -> CatalogEntry:
        """Guests are not shown the tags of the captions that a LoRA was trained on."""
        networks = sorted(lora.networks, reverse=True)
        parts = dict.fromkeys(_NETWORK_LABELS[network] for network in networks)
        facts = [lora.kind]
        if lora.rank:
            facts += [f"rank {lora.rank}", f"alpha {lora.alpha:g}"]
        facts.append(" and ".join(parts))
        return self._add_sidecar(
            CatalogEntry(
                "lora",
                lora.name,
                lora.path,
                family=lora.family or "",
                facts=tuple(facts),
                size_bytes=lora.size_bytes,
                trigger_words=lora.trigger_words,
                tags=() if visitor.is_guest else lora.tags,
                title=lora.title,
                base=lora.base_model,
                usual_weight=lora.usual_weight,
            )
        )

    def _describe_file(self, file: ShelfFile) -> CatalogEntry:
        """Describe a file that no list of the library has."""
        identified = file.model_file
        is_model = identified.kind in ("checkpoint", "denoiser")
        problem = ""
        if is_model:
            problem = explain_no_model(identified)
        elif identified.problem or identified.kind not in KIND_NAMES:
            problem = identified.write_sentence("It")
        elif identified.kind == "embedding":
            fault = self.home.library.embeddings.find_problem(file)
            problem = f"It {fault.rstrip('.')}." if fault else ""
        facts = [*identified.contents, DTYPE_TITLES.get(identified.dtype, identified.dtype)]
        if identified.variant:
            facts.insert(0, identified.variant)
        entry = CatalogEntry(
            "model" if is_model else identified.kind,
            file.name,
            file.path,
            family=identified.family,
            facts=tuple(filter(None, facts)),
            size_bytes=identified.size_bytes,
            problem=problem,
        )
        if not problem and not file.root.title:
            misplaced = self.home.library.describe_file(file.path)
            entry.file, entry.move_to = misplaced.file, misplaced.move_to
        return self._add_sidecar(entry)

    def _add_sidecar(self, entry: CatalogEntry) -> CatalogEntry:
        """Add what other programs wrote beside a file."""
        sidecar = self._read_sidecar(entry.path)
        title = entry.title or sidecar.title
        entry.title = "" if title == entry.name else title
        entry.trigger_words = entry.trigger_words or sidecar.trigger_words
        entry.base = entry.base or sidecar.base_model
        entry.notes = sidecar.notes
        if sidecar.preferred_weight:
            entry.facts = (*entry.facts, f"weight {sidecar.preferred_weight:g}")
        return entry

    def _read_sidecar(self, path: Path) -> Sidecar:
        if path.suffix.lower() not in WEIGHTS_SUFFIXES:
            return Sidecar()
        known = self.home.library.shelf.index.find_facts(path)
        return known.sidecar if known else Sidecar()

    def _add_unusable(
        self,
        entries: dict[Path, CatalogEntry],
        item: Unusable,
        shelf_files: dict[Path, ShelfFile],
    ) -> None:
        """Add what cannot be used; what can and lies in a wrong folder only gets the way out."""
        entry = entries.get(item.path)
        if entry is not None and not entry.problem:
            entry.file, entry.move_to = item.file or entry.file, item.move_to or entry.move_to
            return
        file = shelf_files.get(item.path)
        entries[item.path] = CatalogEntry(
            KIND_TITLES[file.model_file.kind] if file else "",
            item.name,
            item.path,
            family=file.model_file.family if file else "",
            size_bytes=file.model_file.size_bytes if file else 0,
            problem=item.problem,
            file=item.file,
            move_to=item.move_to,
        )

    def _list_roots(self) -> list[Root]:
        settings = self.home.settings
        return [Root(settings.home), *self.home.library.folders.list_roots()]


def report_entry(entry: CatalogEntry, visitor: Visitor) -> dict[str, Any]:
    """Return an entry as programs read it; guests are not told where it lies on this machine."""
    report = {
        "kind": entry.kind,
        "name": entry.name,
        "family": entry.family or None,
        "bytes": entry.size_bytes,
        "facts": list(entry.facts),
        "trigger_words": list(entry.trigger_words),
        "title": entry.title,
        "base_model": entry.base,
        "place": entry.place,
        "favourite": entry.is_favourite,
        "problem": entry.problem,
    }
    if not visitor.is_guest:  # not as "path": gradio's client takes that for a file to fetch
        report["location"] = make_printable(str(entry.path))
    return report


def _describe_place(path: Path, roots: Sequence[Root], visitor: Visitor) -> str:
    """Return where something lies: in the home, or in which folder beside it.

    Of that, a guest is told only the name.
    """
    for root in roots:
        if not root.holds(path):
            continue
        if not root.title:
            return root.describe_place(path)
        return root.title if visitor.is_guest else f"{root.title}: {root.describe_place(path)}"
    return "came with the studio"


def _has_words(entry: CatalogEntry, words: Sequence[str]) -> bool:
    text = "\n".join(
        (
            entry.name,
            entry.title,
            entry.kind,
            entry.family_title,
            FAMILY_TITLES.get(entry.family, ""),
            SEARCH_WORDS.get(entry.family, ""),
            entry.base,
            *entry.trigger_words,
        )
    ).casefold()
    return all(word in text for word in words)


def _join_sentences(sentences: Iterable[str]) -> str:
    return " ".join(sentence[:1].upper() + sentence[1:] for sentence in sentences)


def _name_taken(target: Path) -> BadFile:
    return BadFile(
        f"There is already a file {target.name} in {target.parent.name}/; rename one of the two "
        "first."
    )
