"""The work behind See: a question about a dataset → an answer of names and numbers.

Knows: search by words or by a picture, zero-shot classes, near-duplicates, how well captions fit. Does not know: how vectors are
made (vectors.py), the page; it changes no file of the dataset.

Zero-shot classification: CLIP, arXiv:2103.00020 (several wordings of each class, their mean as its vector).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from studio.core.base import check
from studio.core.captions.clip_query import OTHER, SeeSpec
from studio.engine import metrics
from studio.engine.clip_search import embeddings, near_duplicates
from studio.engine.clip_search.embeddings import Report, Seen
from studio.engine.context import Bench
from studio.engine.metrics import Clip
from studio.errors import BadPicture, DatasetError
from studio.imaging import decode
from studio.storage.datasets.dataset import Album
from studio.storage.datasets.embedding_cache import Vectors
from studio.storage.datasets.items import Picture
from studio.storage.jobs import Progress

WORDINGS = ("{}", "a {}", "a photo of a {}", "a picture of a {}")
# What is none of the classes is likelier one of these than a thing called "other": of 1,360 unseen drawings 91 to 98 % are put
# right so, and 44 to 73 % by words that name nothing ("something", "a photo").
THINGS = (
    "person",
    "dog",
    "cat",
    "bird",
    "tree",
    "flower",
    "house",
    "car",
    "boat",
    "ball",
    "toy",
    "food",
    "star",
    "moon",
    "sun",
)

LOSSLESS = (".png", ".bmp")
ABOUT = 0.7  # so sharp is as sharp: blurred or enlarged copies are below 0.5, compressed ones on either side of 1


def see(bench: Bench, spec: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Answer a question. `spec` is a SeeSpec; from this machine's own programs it may have a "folder" beside it.

    Returns `found` (rows with "file" and numbers; for duplicates `groups` of them) and `failed` (file, error). Pictures that were
    looked at before are not looked at again. `report` raises Cancelled to stop.
    """
    began, given = time.perf_counter(), dict(spec)
    folder = given.pop("folder", None)
    asked = check(SeeSpec, given)
    report(Progress(0, 0, "Reading the pictures"))
    album = bench.albums.open(Path(folder) if folder else asked.dataset)
    album.examine(lambda done, of: report(Progress(done, of, "Reading the pictures")))
    chosen = [album.picture(key) for key in asked.pictures] or list(album.pictures)
    items = [picture for picture in chosen if not picture.reason]
    if not items:
        raise DatasetError(f"There is no picture in {album.name} that can be looked at.")
    report(Progress(0, 0, "Loading CLIP"))
    with (
        closing(Vectors(bench.settings.home)) as memory,
        metrics.clip(bench.pipelines, asked.clip) as clip,
    ):
        table, broken = embeddings.of_pictures(clip, memory, items, report)
        good = [row for row, picture in enumerate(items) if picture.content not in broken]
        looked = _Looked(
            clip,
            memory,
            album,
            [items[row] for row in good],
            table[good],
            asked,
            report,
            bench.settings.home / "inputs",
        )
        answer = ANSWERS[asked.question](looked)
    failed = [{"file": one.key, "error": one.reason} for one in chosen if one.reason]
    failed += [
        {"file": one.key, "error": broken[one.content]} for one in items if one.content in broken
    ]
    return answer | {
        "question": asked.question,
        "clip": asked.clip,
        "count": len(good),
        "failed": failed,
        "seconds": round(time.perf_counter() - began, 3),
    }


@dataclass(frozen=True)
class _Looked:
    """Pictures with their vectors (n, width), and what is asked about them."""

    clip: Clip
    memory: Vectors
    album: Album
    items: Sequence[Picture]
    table: np.ndarray
    asked: SeeSpec
    report: Report
    inputs: Path

    @property
    def example(self) -> Seen:
        """The picture that others are to be like. Raises DatasetError and BadPicture."""
        name = self.asked.like
        if not re.fullmatch("[0-9a-f]{64}", name):
            return self.album.picture(name)
        path = self.inputs / f"{name}.png"
        if not path.is_file():
            raise BadPicture(f"The picture {name[:12]} is not in {self.inputs}; send it again.")
        return _Sent(path, name)


@dataclass(frozen=True)
class _Sent:
    """A picture of the home's inputs; its name is its content."""

    path: Path
    content: str


def _search(looked: _Looked) -> dict[str, Any]:
    """The pictures that are most like words or a picture; `score` is the cosine."""
    if looked.asked.like:
        wanted, broken = embeddings.of_pictures(
            looked.clip, looked.memory, [looked.example], looked.report
        )
        for why in broken.values():
            raise BadPicture(why)
    else:
        wanted = embeddings.of_texts(looked.clip, looked.memory, [looked.asked.words.strip()])
    scores = looked.table @ wanted[0]
    best = [
        row
        for row in np.argsort(-scores, kind="stable")
        if looked.items[row].key != looked.asked.like
    ][: looked.asked.limit]
    return {
        "found": [
            {"file": looked.items[row].key, "score": round(float(scores[row]), 4)} for row in best
        ]
    }


def _classes(looked: _Looked) -> dict[str, Any]:
    """Each picture's class, with the share that CLIP gives it among the classes, 0 to 1."""
    names = looked.asked.classes
    taken = {word for name in names for word in name.lower().split()}
    others = [thing for thing in THINGS if thing not in taken]
    said = [others if name.lower() == OTHER else [name] for name in names]
    logits = np.stack([_logits(looked, words).max(1) for words in said], axis=1)
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    found = [
        {"file": item.key, "class": names[int(row.argmax())], "share": round(float(row.max()), 4)}
        for item, row in zip(looked.items, shares)
    ]
    return {
        "found": found,
        "counts": {name: sum(one["class"] == name for one in found) for name in names},
    }


def _logits(looked: _Looked, words: Sequence[str]) -> np.ndarray:
    """How much each picture is like each of some words (n, words), before it becomes a share."""
    rows = embeddings.of_texts(
        looked.clip, looked.memory, [wording.format(word) for word in words for wording in WORDINGS]
    )
    means = rows.reshape(len(words), len(WORDINGS), -1).mean(1)
    return (
        looked.clip.scale * looked.table @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    )


def _duplicates(looked: _Looked) -> dict[str, Any]:
    """Groups of pictures that are nearly the same; `like` is how much each is like the first, which is the best.

    That is the largest; of several as large the sharpest; of several about as sharp a lossless file, the largest.
    """
    order = sorted(
        range(len(looked.items)),
        key=lambda row: (-looked.items[row].size[0] * looked.items[row].size[1], row),
    )
    thumbs = embeddings.thumbnails(looked.memory, [looked.items[row] for row in order])

    def best(rows: list[int]) -> int:
        most = max(
            looked.items[order[row]].size[0] * looked.items[order[row]].size[1] for row in rows
        )
        tied: dict[str, int] = {}  # one row of each content
        for row in rows:
            if (item := looked.items[order[row]]).size[0] * item.size[1] == most:
                tied.setdefault(item.content, row)
        looked.report(Progress(0, 0, "Comparing"))
        sharp = {
            row: near_duplicates.sharpness(decode.load(looked.items[order[row]].path).image)
            for row in tied.values()
            if len(tied) > 1
        }
        near = [row for row in sharp if sharp[row] >= ABOUT * max(sharp.values())] or rows[:1]
        return max(
            near,
            key=lambda row: (
                (item := looked.items[order[row]]).path.suffix.lower() in LOSSLESS,
                item.bytes,
            ),
        )

    found = near_duplicates.groups(
        looked.table[order], thumbs, lambda: looked.report(Progress(0, 0, "Comparing")), best
    )
    named = [[(looked.items[order[row]], like) for row, like in members] for members in found]
    return {
        "groups": [
            [
                {
                    "file": item.key,
                    "like": round(like, 4),
                    "same_file": item.content == members[0][0].content,
                }
                for item, like in members
            ]
            for members in named
        ]
    }


def _fit(looked: _Looked) -> dict[str, Any]:
    """How well each caption fits its picture (cosine), the worst first."""
    rows = [row for row, item in enumerate(looked.items) if item.caption]
    said = embeddings.of_texts(
        looked.clip, looked.memory, [looked.items[row].caption for row in rows]
    )
    fits = (looked.table[rows] * said).sum(1) if rows else np.zeros(0)
    found = [
        {"file": looked.items[row].key, "fit": round(float(fit), 4)} for row, fit in zip(rows, fits)
    ]
    return {"found": sorted(found, key=lambda one: one["fit"])}


ANSWERS: dict[str, Callable[[_Looked], dict[str, Any]]] = {
    "search": _search,
    "classes": _classes,
    "duplicates": _duplicates,
    "fit": _fit,
}
