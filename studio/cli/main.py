"""The command line, derived from the same fields as the form; the only place where things are put together.

Knows: how a spec's fields become flags, and the exit status: 0; 1 with one plain line on stderr; 2 for a wrong call.
Does not know: what the commands do. Each imports what it needs when it runs, so that `studio --help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from pydantic import BaseModel

from studio import __version__
from studio.core.base import schema
from studio.core.captions.spec import CaptionSpec
from studio.core.generation.request import GenerationRequest
from studio.errors import Busy, Cancelled, InvalidSpec, StudioError

if TYPE_CHECKING:
    from studio.settings import Settings

HOME_FLAGS = ("home", "device", "precision", "keep_free", "preview_every")


def add_fields(parser: argparse.ArgumentParser, model: type[BaseModel], *without: str) -> None:
    """A flag for every field but some; that of a list may be given again, that of a yes or no has no value.

    Only what was typed lands in the namespace, as text: the model converts and checks it.
    """
    for name, field in schema(model).items():
        if name in without:
            continue
        field = {
            **field,
            **next((kind for kind in field.get("anyOf", ()) if kind.get("type") != "null"), {}),
        }
        many = field.get("type") == "array"
        flag = "--" + (name.removesuffix("s") if many else name).replace("_", "-")
        shown = f"{field.get('description', '')} {limits(field)}".strip().replace("%", "%%")
        if field.get("type") == "boolean":
            parser.add_argument(
                flag, dest=name, default=argparse.SUPPRESS, help=shown, action="store_true"
            )
            continue
        listed = "NAME:WEIGHT" if name == "loras" else "NAME"
        metavar = "N" if field.get("type") in ("integer", "number") else listed if many else "TEXT"
        parser.add_argument(
            flag,
            dest=name,
            default=argparse.SUPPRESS,
            help=shown,
            metavar=metavar,
            action="append" if many else "store",
        )


def limits(field: dict[str, Any]) -> str:
    """A field's choices or range, and its default, in words."""
    words = ["one of " + ", ".join(field["enum"])] if "enum" in field else []
    if "minimum" in field and "maximum" in field:
        words.append(f"{field['minimum']} to {field['maximum']}")
    if field.get("default") not in (None, "", []):
        words.append(f"default {field['default']}")
    return f"({'; '.join(words)})" if words else ""


def build() -> argparse.ArgumentParser:
    """All commands and their flags."""
    about = "Make pictures with Stable Diffusion. Without a command it opens the page."
    root = argparse.ArgumentParser("studio", description=about, allow_abbrev=False)
    root.add_argument("--version", action="version", version=f"studio {__version__}")
    root.add_argument("--host", help="address to listen on (default 127.0.0.1)")
    root.add_argument("--port", type=int, help="port (default 7860; 0 takes a free one)")
    root.add_argument(
        "--share", action="store_true", default=None, help="make a public link; forces a login"
    )
    root.add_argument("--auth", metavar="USER:PASSWORD", help="what visitors have to give")
    root.add_argument("--open", action="store_true", help="open the page in the browser")
    _home(root)
    root.set_defaults(command=page)
    commands = root.add_subparsers(title="commands", metavar="")

    def command(work: Callable[[argparse.Namespace], None], about: str) -> argparse.ArgumentParser:
        added = commands.add_parser(
            work.__name__, help=about, description=about, allow_abbrev=False
        )
        added.set_defaults(command=work)
        return added

    making = command(
        generate,
        "Make pictures; print one path a line. A text that begins with - is given as --prompt=-x. --image "
        "takes a file, or a folder for all in it; --mask a file, or transparency for the picture's own.",
    )
    add_fields(making, GenerationRequest)
    making.add_argument(
        "--strip",
        type=int,
        metavar="N",
        help="in place of the picture, a sheet of every N-th step on the way",
    )
    making.add_argument(
        "--output", type=Path, metavar="DIR", help="also copy the pictures into this folder"
    )
    making.add_argument(
        "--json",
        action="store_true",
        help="print a JSON object a line: path, request, digest, seconds",
    )
    _home(making, argparse.SUPPRESS)
    grids = command(
        sweep,
        "Make a grid of pictures; print a path a line: the cells in order, then sheet, viewer and index.",
    )
    grids.add_argument(
        "file",
        type=Path,
        metavar="SPEC.toml",
        help="base and axes; running it again goes on where it was",
    )
    grids.add_argument(
        "--plan",
        action="store_true",
        help="print the cells in order and what they will take; make nothing",
    )
    grids.add_argument(
        "--fast",
        action="store_true",
        help="several cells in one U-Net call: quicker, the last bits may differ",
    )
    grids.add_argument(
        "--output",
        type=Path,
        metavar="DIR",
        help="also put pictures, sheet, viewer and index into this folder",
    )
    _home(grids, argparse.SUPPRESS)
    training = command(
        train,
        "Train a LoRA; print its file. FILE: the studio's TOML, kohya's TOML or JSON, or a LoRA made here.",
    )
    training.add_argument("file", type=Path, metavar="FILE")
    training.add_argument(
        "--plan",
        action="store_true",
        help="print settings, steps, layers and a note on every key; make nothing",
    )
    training.add_argument(
        "--resume", action="store_true", help="go on with the last run of these settings"
    )
    training.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another value for a setting",
    )
    training.add_argument(
        "--as-meant", action="store_true", help="read kohya's keys as people usually mean them"
    )
    _home(training, argparse.SUPPRESS)
    captions = command(
        caption,
        "Caption a folder of pictures; print a line for each. What is done is kept when it is stopped.",
    )
    captions.add_argument("folder", metavar="FOLDER", help="a folder, or the name of a dataset")
    add_fields(captions, CaptionSpec, "dataset")
    captions.add_argument(
        "--json",
        action="store_true",
        help="print one JSON object: counts, rows with before and after, failures",
    )
    _home(captions, argparse.SUPPRESS)
    data = command(
        dataset, "Say what is in a folder of pictures and captions, and what is wrong with it."
    )
    data.add_argument("folder", metavar="FOLDER", help="a folder, or the name of a dataset")
    data.add_argument(
        "--trigger", default="", metavar="WORD", help="a word that has to stand in every caption"
    )
    data.add_argument(
        "--resolution", default=0, metavar="N", help="name pictures with fewer than N x N pixels"
    )
    data.add_argument("--json", action="store_true", help="print JSON")
    _home(data, argparse.SUPPRESS)
    command(
        inspect, "Say what a picture, model folder, LoRA or other safetensors file is, as JSON."
    ).add_argument("file", type=Path, metavar="FILE")
    doctor_flags = command(doctor, "Say what this machine has and what is missing.")
    doctor_flags.add_argument("--json", action="store_true", help="print JSON")
    _home(doctor_flags, argparse.SUPPRESS)
    return root


def _home(parser: argparse.ArgumentParser, default: Any = None) -> None:
    parser.add_argument(
        "--home",
        type=Path,
        metavar="DIR",
        default=default,
        help="your models, pictures, queue (~/studio-home)",
    )
    parser.add_argument(
        "--device", default=default, help="auto, cpu, cuda, cuda:1, mps or xpu (default auto)"
    )
    parser.add_argument(
        "--precision", default=default, help="auto, float32, float16 or bfloat16 (default auto)"
    )
    parser.add_argument(
        "--keep-free", default=default, metavar="GIB", help="memory to leave to others (default 1)"
    )
    parser.add_argument(
        "--preview-every",
        default=default,
        metavar="N",
        help="steps between previews, 0 for none (default 3)",
    )


def _settings(arguments: argparse.Namespace, *more: str) -> Settings:
    from studio import settings

    return settings.load(**{name: getattr(arguments, name, None) for name in (*HOME_FLAGS, *more)})


def page(arguments: argparse.Namespace) -> None:
    """Open the page: take the home, keep a worker alive, serve."""
    settings = _settings(arguments, "host", "port", "share", "auth")
    from studio.engine.worker import supervise
    from studio.storage.jobs import Jobs, Lock

    lock = Lock(settings.home, "studio")
    if not lock.take(wait=1.0):
        raise Busy(
            f"Another studio is open on {settings.home}; use that one, or give this one another --home."
        )
    jobs = Jobs(settings.home / "jobs.sqlite")
    jobs.note("version", __version__)
    threading.Thread(target=supervise, args=(settings, jobs), daemon=True).start()
    from studio.storage.cleanup import tidy

    threading.Thread(target=tidy, args=(settings, jobs), daemon=True).start()
    from studio.ui.app import serve

    serve(settings, jobs, open_browser=arguments.open)


def generate(arguments: argparse.Namespace) -> None:
    """Through the queue of a studio that runs on this home, else in place while holding the device."""
    from studio.cli import generate as pictures_command
    from studio.cli.runner import working

    given = {
        name: value
        for name, value in vars(arguments).items()
        if name in GenerationRequest.model_fields
    }
    request = pictures_command.asked(given)
    settings = _settings(arguments)
    named = list(
        pictures_command.each(settings, request, given.get("image", ""), given.get("mask", ""))
    )
    if len(named) == 1 and isinstance(error := named[0][1], StudioError):
        raise error  # a wrong name is said before anything is loaded
    failed = []
    with working(settings) as work:
        for name, one in named:
            try:
                if isinstance(one, StudioError):
                    raise one
                spec = one.model_dump(mode="json")
                made = (
                    work("strip", {"request": spec, "every": arguments.strip})
                    if arguments.strip
                    else work("generate", spec)
                )
                _print(arguments, settings, made)
            except StudioError as error:
                if len(named) == 1:
                    raise
                failed.append(f"{name}: {error}")
    if failed:
        raise StudioError(
            "\n".join([f"{len(failed)} of {len(named)} pictures could not be made.", *failed])
        )


def _print(arguments: argparse.Namespace, settings: Settings, result: dict[str, Any]) -> None:
    from studio.cli import generate as pictures_command
    from studio.cli.runner import say
    from studio.storage.gallery import Gallery

    gallery = Gallery(settings)
    for note in result.get("notes", ()):
        say(note, 0)
    for made in result["pictures"]:
        path, picture = Path(made["path"]), gallery.get(made["path"])
        if arguments.output:
            path = pictures_command.copied(path, arguments.output.expanduser().resolve())
        request = picture.request.model_dump(mode="json") if picture else result["request"]
        said = {
            "path": str(path),
            "request": request,
            "digest": made["digest"],
            "seconds": made["seconds"],
        }
        print(json.dumps(said, ensure_ascii=False) if arguments.json else path, flush=True)


def sweep(arguments: argparse.Namespace) -> None:
    """Made, or taken from what was made before."""
    from studio.cli import sweep as sweep_command

    id, found = sweep_command.asked(arguments.file.expanduser(), arguments.fast)
    settings = _settings(arguments)
    sweep_command.check(found, settings)
    if arguments.plan:
        print(json.dumps(sweep_command.planned(found, settings), ensure_ascii=False))
        return
    output = arguments.output.expanduser().resolve() if arguments.output else None
    for path in sweep_command.made(id, found, settings, output):
        print(path, flush=True)


def train(arguments: argparse.Namespace) -> None:
    """As a stored run, which can be stopped (Ctrl + C) and resumed."""
    from studio.cli import train as training_command

    path, asked = arguments.file.expanduser(), (arguments.as_meant, arguments.set)
    if arguments.plan:
        print(json.dumps(training_command.planned(path, *asked), ensure_ascii=False))
        return
    config, said = training_command.config_of(path, *asked)
    settings = _settings(arguments)
    from studio.storage.datasets.training_set import Datasets
    from studio.storage.models.library import Library
    from studio.storage.training.runs import Runs

    Library(settings).model(config.model)
    Datasets(settings).open(config.dataset)
    from studio.cli.runner import done, say

    for note in said:
        say(note, 0)
    runs = Runs(settings)
    before = None
    if arguments.resume:
        given = config.model_dump(exclude={"seed"} if config.seed < 0 else set())
        before = next(
            (run for run in runs.listing() if run.config.model_dump(include=set(given)) == given),
            None,
        )
    if arguments.resume and before is None:
        raise StudioError(
            f"There is no run of these settings of {config.name} to go on with; leave --resume out to begin one."
        )
    id = before.id if before else runs.add(config, "command-line")
    result = done(settings, "train", {"run": id, "resume": True})
    for note in result.get("notes", ()):
        say(note, 0)
    print(settings.loras / f"{result['lora']}.safetensors", flush=True)


def caption(arguments: argparse.Namespace) -> None:
    """Through the queue of a studio that runs on this home, else in place while holding the device."""
    from studio.cli import caption as caption_command
    from studio.cli.runner import done

    settings = _settings(arguments)
    given = {
        name: value for name, value in vars(arguments).items() if name in CaptionSpec.model_fields
    }
    result = done(settings, "caption", caption_command.job_of(arguments.folder, given, settings))
    for line in caption_command.lines(result, arguments.json):
        print(line, flush=True)
    caption_command.complain(result)


def dataset(arguments: argparse.Namespace) -> None:
    """What is in a folder; nothing in it is changed."""
    from studio.cli import dataset as dataset_command
    from studio.core.base import check
    from studio.core.captions.lint import Rules

    rules = check(Rules, {"trigger": arguments.trigger, "resolution": arguments.resolution})
    found = dataset_command.look(_settings(arguments), arguments.folder, rules)
    print(
        json.dumps(found, ensure_ascii=False) if arguments.json else dataset_command.in_words(found)
    )


def inspect(arguments: argparse.Namespace) -> None:
    """What a file or folder is, as JSON."""
    from studio.cli.inspect import look_at

    print(json.dumps(look_at(arguments.file.expanduser()), ensure_ascii=False))


def doctor(arguments: argparse.Namespace) -> None:
    """What this machine has."""
    from studio.cli.inspect import examine, in_words

    found = examine(_settings(arguments))
    print(json.dumps(found, ensure_ascii=False) if arguments.json else in_words(found))


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run one command and end the process with its status."""
    arguments = build().parse_args(words)
    from studio.cli.runner import say

    try:
        arguments.command(arguments)
    except InvalidSpec as error:
        sys.exit(say(str(error), 2))
    except StudioError as error:
        sys.exit(say(str(error), 1))
    except (KeyboardInterrupt, Cancelled):
        sys.exit(say("stopped", 130))
    except BrokenPipeError:
        sys.exit(1)
    sys.exit(0)
