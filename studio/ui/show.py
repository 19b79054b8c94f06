"""From the studio's values to what the page shows: errors, jobs, pictures' settings, as words and HTML.

Knows: how things are said. Does not know: where on the page they stand; every text of a user's is escaped here.
"""

from __future__ import annotations

import base64
import html
import logging
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from studio.core.generation.geometry import enlarged
from studio.core.generation.request import GenerationRequest, LoraUse
from studio.errors import StudioError
from studio.storage.gallery import Picture
from studio.storage.jobs import Job

log = logging.getLogger(__name__)


def empty(head: str, words: str) -> str:
    """What stands where a picture will be."""
    return f'<div class="empty"><div class="empty-frame" aria-hidden="true"></div><p><b>{head}</b></p><p>{words}</p></div>'


EMPTY = empty(
    "Your picture will appear here.",
    "Say what it should show and press Generate, or Ctrl + Enter. The embedded model "
    "knows a small world: try “a photo of a red ball on a beach”.",
)


@contextmanager
def said(plain: bool = False) -> Iterator[None]:
    """Turn a StudioError into a message: HTML for the page, `plain` for programs. Anything else is a bug: to the log."""
    try:
        yield
    except gr.Error:
        raise
    except StudioError as error:
        text = str(error) if plain else html.escape(str(error)).replace("\n", "<br>")
        raise gr.Error(text, duration=None, print_exception=False) from None
    except Exception:
        log.exception("a handler of the page or an endpoint failed")
        raise gr.Error(
            "Something went wrong inside the studio; the log says what.", print_exception=False
        ) from None


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def size(count: float) -> str:
    """Bytes as a person says them."""
    if count < 2**20:
        return f"{count / 2**10:.0f} KiB"
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"


def running(waiting: list[Job]) -> str:
    """A visitor's open jobs: the first with its picture so far, the bar, and the time left."""
    job, more = waiting[0], len(waiting) - 1
    at = job.progress
    share = at.step / at.total if at.total else 0
    if job.state == "queued":
        words = "waiting for its turn"
    elif not at.total:
        words = at.note or "getting ready"
    else:
        words = f"step {at.step} of {at.total}" + (f" · {at.note}" if at.note else "")
        words += f" · about {duration(at.left)} left" if at.left is not None else ""
    words += f" · {more} more after this" if more else ""
    image = base64.b64encode(at.preview).decode() if at.preview else ""
    picture = (
        f'<img alt="the picture so far" src="data:image/jpeg;base64,{image}">'
        if image
        else "<div></div>"
    )
    bar = f'<i style="width:{share * 100:.1f}%"></i>'
    return (
        f'<div class="making"><div class="canvas {"" if image else "blank"}">{picture}</div>'
        f'<div class="bar" role="progressbar" aria-valuenow="{share * 100:.0f}">{bar}</div>'
        f'<p data-state="{job.state}">{html.escape(words)}</p></div>'
    )


def ended(job: Job | None) -> str:
    """How a visitor's last job came out."""
    if job is None:
        return EMPTY
    made = len(pictures_of(job))
    match job.state:
        case "done":
            words = f"{made} picture{'s' * (made != 1)} in {duration((job.ended or 0) - (job.started or 0))}"
        case "cancelled":
            words = "Stopped." + (f" {made} finished before that." if made else "")
        case "interrupted":
            words = f"Interrupted: {job.error}. The Queue tab can start it again."
        case _:
            words = job.error or "failed"
    notes = job.result.get("notes", ()) if isinstance(job.result, dict) else ()
    more = "".join(f'<p class="note">{html.escape(str(note))}</p>' for note in notes)
    return f'<p class="ended" data-state="{job.state}">{html.escape(words)}</p>{more}'


def pictures_of(job: Job) -> list[dict[str, Any]]:
    """The pictures that a job has made so far, finished or not."""
    if isinstance(job.result, dict):
        return list(job.result.get("pictures", ()))
    return list(job.progress.pictures)


def settings(picture: Picture | None) -> str:
    """What a picture was made with."""
    if picture is None:
        return ""
    request = picture.request
    painted = (request.width, request.height)
    size = picture.size or painted
    steps = (
        f"{request.steps}"
        if request.steps_run == request.steps
        else f"{request.steps_run} of {request.steps}"
    )
    rows = [
        ("Model", request.model),
        ("Size", f"{size[0]} × {size[1]}"),
        ("Steps", steps),
        ("Guidance", f"{request.guidance:g}"),
        ("Scheduler", f"{request.scheduler} · {request.schedule}"),
        ("Seed", request.seed),
        ("Took", duration(picture.seconds)),
    ]
    rows += [("Painted at", f"{painted[0]} × {painted[1]}")] if size != painted else []
    rows += [("Clip skip", request.clip_skip)] if request.clip_skip > 1 else []
    rows += [("At once", request.batch)] if request.batch > 1 else []
    rows += [(f"LoRA {use.name}", weights(use)) for use in request.untagged().loras]
    rows += _worked(request)
    cells = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in rows
    )
    words = html.escape(request.prompt) or "<i>no prompt</i>"
    without = (
        f'<p class="without">without: {html.escape(request.negative_prompt)}</p>'
        if request.negative_prompt
        else ""
    )
    return f'<div class="about"><p class="words">{words}</p>{without}<dl>{cells}</dl></div>'


def _worked(request: GenerationRequest) -> list[tuple[str, object]]:
    """What was done with a picture that was worked on, and a second pass."""
    rows: list[tuple[str, object]] = (
        [("Strength", f"{request.strength:g}")] if request.image else []
    )
    if request.task == "inpaint":
        grown = f", grown by {request.mask_grow} px" if request.mask_grow else ""
        rows += [
            ("Mask", f"{'inverted, ' * request.invert_mask}blur {request.mask_blur} px{grown}"),
            ("Masked content", request.masked_content),
        ]
    if request.task == "outpaint":
        names = ("left", "top", "right", "bottom")
        rows += [
            (
                "Extended",
                ", ".join(f"{name} {side}" for name, side in zip(names, request.extension) if side),
            ),
            ("Filled with", request.extend_fill),
        ]
    if request.repaints:
        padding = (
            f", padding {request.mask_padding} px" if request.inpaint_area == "only masked" else ""
        )
        rows += [("Inpaint area", f"{request.inpaint_area}{padding}")]
    elif request.image:
        rows += [("Resize mode", request.resize_mode)]
    if request.hires:
        tiles = f", tiles of {request.hires_tile} px" if request.hires_tile else ""
        rows += [
            (
                "Hires",
                f"× {request.hires_scale:g}, {request.hires_steps_run} steps, strength {request.hires_strength:g}, "
                f"{request.hires_resize}{tiles}",
            )
        ]
    return rows


def weights(use: LoraUse) -> str:
    """How strong a LoRA is, in a few words."""
    apart = use.unet != use.text_encoder
    return (
        f"{use.unet:g} in the picture, {use.text_encoder:g} in the text"
        if apart
        else f"{use.unet:g}"
    )


def estimate(request: GenerationRequest, rate: float | None, work: float, calls: int) -> str:
    """What a request will take, said before it is sent. `work` is one picture's, `calls` its U-Net calls."""
    steps = [f"{request.steps_run} steps"] if request.steps_run or not request.hires else []
    steps += [f"{request.hires_steps_run} larger ones"] if request.hires else []
    said = " + ".join(steps) + (f" × {request.count} pictures" if request.count > 1 else "")
    said += f" · {calls * request.count} U-Net rows"
    if request.hires:
        width, height = enlarged((request.width or 0, request.height or 0), request.hires_scale)
        said += f" · {width} × {height}"
    said += (
        f" · about {duration(rate * work * request.count)}"
        if rate
        else " · not measured on this machine yet"
    )
    return f'<p class="estimate">{said}</p>'


STATES = {
    "running": "running",
    "queued": "waiting",
    "done": "done",
    "failed": "failed",
    "cancelled": "stopped",
    "interrupted": "interrupted",
}


def queue(jobs: list[tuple[Job, bool]], may_jump: bool) -> str:
    """The job table as two lists. The second of each pair says whether the visitor may know and change the job."""
    waiting = [pair for pair in jobs if pair[0].open]
    past = [pair for pair in jobs if not pair[0].open]
    waiting.sort(key=lambda pair: pair[0].state != "running")
    empty = '<p class="nothing">Nothing runs and nothing waits.</p>'
    history = '<p class="nothing">No jobs yet.</p>'
    return (
        f"<section><h3>Now</h3>{''.join(_job_row(pair, may_jump) for pair in waiting) or empty}</section>"
        f"<section><h3>History</h3>{''.join(_job_row(pair, may_jump) for pair in past) or history}</section>"
    )


def _job_row(pair: tuple[Job, bool], may_jump: bool) -> str:
    job, known = pair
    about = html.escape(what(job)) if known else "<i>somebody else's</i>"
    share = (
        job.progress.step / job.progress.total * 100
        if job.progress.total and job.state == "running"
        else 0
    )
    buttons = ""
    if known and job.state == "queued":
        buttons = _button("first", job.id, "↑ First") if may_jump else ""
        buttons += _button("last", job.id, "↓ Last") + _button("cancel", job.id, "Cancel")
    elif known and job.state == "running":
        buttons = _button("cancel", job.id, "Stop")
    elif known:
        buttons = _button("retry", job.id, "Again")
    note = html.escape(job.error or "") if known and job.error else ""
    took = duration(job.ended - job.started) if job.ended and job.started else ""
    return (
        f'<div class="job" data-job="{job.id}" data-state="{job.state}"><span class="chip {job.state}">{STATES[job.state]}'
        f'</span><div class="job-what"><b>{about}</b><small>#{job.id} {took} {note}</small>'
        f'<div class="bar thin"><i style="width:{share:.0f}%"></i></div></div><div class="job-do">{buttons}</div></div>'
    )


def what(job: Job) -> str:
    """A job in a few words."""
    if job.kind == "generate":
        words = str(job.spec.get("prompt") or "no prompt")
        count = int(job.spec.get("count", 1))
        return (words if len(words) < 120 else words[:117] + "…") + (
            f" × {count}" if count > 1 else ""
        )
    if job.kind == "sweep":
        cells, title = job.spec.get("cells", "?"), str(job.spec.get("title") or "without a title")
        return f"sweep of {cells} cells: " + (title if len(title) < 100 else title[:97] + "…")
    if job.kind == "strip":
        words = str((job.spec.get("request") or {}).get("prompt") or "no prompt")
        return f"denoise strip: {words:.100}"
    if job.kind == "export":
        return "sheet and viewer of a sweep"
    if job.kind in ("train", "export_checkpoint"):
        name, steps = (
            str(job.spec.get("name") or "a LoRA"),
            job.spec.get("steps" if job.kind == "train" else "step", "?"),
        )
        return (
            f"training of {name}: {steps} steps"
            if job.kind == "train"
            else f"LoRA file of {name} after {steps} steps"
        )
    if job.kind == "report":
        return f"was the training {job.spec.get('name') or 'of a LoRA'} worth it"
    if job.kind == "probe":
        return f"a try of the training {(job.spec.get('config') or {}).get('name') or 'without a name'}"
    if job.kind == "caption":
        shown_only = "captions shown for" if job.spec.get("dry_run") else "captions for"
        return f"{shown_only} {job.spec.get('dataset') or 'a folder'} by {job.spec.get('captioner') or 'a captioner'}"
    if job.kind == "see":
        asked = {
            "search": "search in",
            "classes": "classes of the pictures of",
            "duplicates": "near-duplicates in",
            "fit": "how well captions fit in",
        }
        words = f": {job.spec['words']}" if job.spec.get("words") else ""
        return f"{asked.get(str(job.spec.get('question')), 'a look at')} {job.spec.get('dataset') or 'a folder'}{words}"[
            :140
        ]
    if job.kind == "unload":
        return "take out of memory: " + ", ".join(map(str, job.spec.get("models", ())))
    return job.kind


def _button(do: str, subject: object, label: str) -> str:
    return f'<button class="do" data-do="{do}" data-subject="{html.escape(str(subject))}">{label}</button>'


CHIPS = 12  # trigger words and tags that a card shows


def models(
    cards: Sequence[Mapping[str, Any]], workers: Mapping[str, Mapping[str, Any]], may_unload: bool
) -> str:
    """The library as cards, and what each worker runs on."""
    rows = (
        "".join(_model_card(card, may_unload) for card in cards)
        or '<p class="nothing">No models.</p>'
    )
    lines = (
        "".join(
            f'<p class="worker"><span class="chip {html.escape(str(said.get("state")))}">{html.escape(str(said.get("state")))}</span>'
            f" {html.escape(str(said.get('device', name)))} · {html.escape(str(said.get('dtype', '')))}{_memory(said)}</p>"
            for name, said in workers.items()
        )
        or '<p class="worker"><span class="chip">starting</span> no worker yet</p>'
    )
    return f'<section>{lines}</section><div class="cards">{rows}</div>'


def loras(cards: Sequence[Mapping[str, Any]]) -> str:
    """The LoRAs as cards; those that cannot be used say why."""
    rows = "".join(_lora_card(card) for card in cards)
    return f'<section><h3>LoRAs</h3></section><div class="cards">{rows}</div>' if rows else ""


def _lora_card(card: Mapping[str, Any]) -> str:
    name = html.escape(str(card["name"]))
    if card.get("problem"):
        return f'<div class="card bad" data-lora="{name}"><h4>{name}</h4><p>{html.escape(str(card["problem"]))}</p></div>'
    words = "".join(
        f'<span class="chip">{html.escape(word)}</span>' for word in card["words"][:CHIPS]
    )
    tags = ", ".join(
        f"{html.escape(tag)}&thinsp;<small>{count}</small>" for tag, count in card["tags"][:CHIPS]
    )
    origin = " · ".join(
        part for part in (card["title"], f"made on {card['base']}" if card["base"] else "") if part
    )
    lines = [
        ("what", html.escape(card["about"])),
        ("origin", html.escape(origin)),
        ("words", words),
        ("tags", tags and f"Often in its captions: {tags}"),
    ]
    told = "".join(f'<p class="{kind}">{line}</p>' for kind, line in lines if line)
    return (
        f'<div class="card" data-lora="{name}"><h4>{name}</h4>{told}'
        f"{_button('use', card['name'], 'Use in txt2img')}</div>"
    )


def _memory(said: Mapping[str, Any]) -> str:
    memory = said.get("memory") or {}
    return (
        f" · {size(memory['free'])} of {size(memory['total'])} free"
        if {"free", "total"} <= set(memory)
        else ""
    )


def _model_card(card: Mapping[str, Any], may_unload: bool) -> str:
    name = html.escape(str(card["name"]))
    if card.get("problem"):
        return (
            f'<div class="card bad"><h4>{name}</h4><p>{html.escape(str(card["problem"]))}</p></div>'
        )
    loaded = card.get("loaded")
    state = (
        f'<span class="chip running">in memory · {size(loaded)}</span>'
        if loaded
        else '<span class="chip">on disk</span>'
    )
    button = _button("unload", card["name"], "Take out of memory") if loaded and may_unload else ""
    return (
        f'<div class="card" data-model="{name}"><h4>{name}</h4><p>{html.escape(str(card["family"]))} · {card["side"]} px · '
        f"{html.escape(str(card['dtype']))} · {html.escape(str(card['prediction']))} · {size(card['bytes'])}</p>"
        f"<p>{state} {button}</p></div>"
    )


def address(path: Path) -> str:
    """Where the page finds a file that is served by its path."""
    return f"/gradio_api/file={urllib.parse.quote(str(path))}"
