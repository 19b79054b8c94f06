"""Settings of this installation: where the home is, which device computes, who may connect.

Knows: the order defaults < studio.toml in the home < STUDIO_* variables < flags, and where the
shipped files lie. Does not know: what an image needs (core/), what a device can do
(engine/models/devices.py).
"""

from __future__ import annotations

import functools
import ipaddress
import os
import re
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from studio.core.toml_text import load_toml
from studio.errors import BadFile, InvalidSpec, quote

HERE = Path(__file__).resolve().parent
ENVIRONMENT_PREFIX = "STUDIO_"
MAX_SETTINGS_BYTES = 64 * 2**10  # of studio.toml
MAX_BIN_DAYS = 3650
# Made when they are needed; a file of such a name is in the way.
LATER_FOLDERS = ("datasets", "cache", "uploads", "empty")


def shipped(folder: Literal["assets", "presets"]) -> Path:
    """Return a folder that came with the studio.

    It lies inside the package in a wheel, beside it in a checkout.
    """
    packaged = HERE / folder
    return packaged if packaged.is_dir() else HERE.parent / folder


class Settings(BaseSettings):
    """Settings that are the same for every request."""

    model_config = SettingsConfigDict(env_prefix=ENVIRONMENT_PREFIX, frozen=True, extra="forbid")

    home: Path = Field(
        Path("~/studio-home"),
        description="Folder with your models, images, presets and the queue.",
    )
    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(7860, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    share: bool = Field(False, description="Make a public link for a friend; forces a login.")
    auth: str = Field("", description="USER:PASSWORD that visitors must enter.")
    guests: tuple[str, ...] = Field(
        (), description="NAME:PASSWORD for each guest with a login of their own.", repr=False
    )
    allow_hosts: tuple[str, ...] = Field(
        (), description="Other host names the page can be reached under, such as behind a proxy."
    )
    root_path: str = Field(
        "", description="Path under which a proxy serves the page, such as /studio."
    )
    trusted_proxies: tuple[str, ...] = Field(
        (), description="Addresses of proxies whose X-Forwarded headers are trusted."
    )
    allow_embedding: tuple[str, ...] = Field(
        (), description="Sites that may show the page in a frame, such as https://example.org."
    )
    new_visitors: int = Field(
        60,
        ge=1,
        le=1_000_000,
        description="New guests an hour from one address; four times as many from all of them.",
    )
    folders: tuple[str, ...] = Field(
        (),
        description="Model folders of other programs, used in place: PATH or NAME=PATH.",
    )
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|mps|xpu|cuda(:\d+)?)$",
        description="auto, cpu, cuda, cuda:1, mps or xpu.",
    )
    precision: Literal["auto", "float32", "float16", "bfloat16"] = Field(
        "auto", description="Number format of the networks; auto takes what suits the device."
    )
    keep_free: float = Field(
        1.0, ge=0, le=1000, description="GiB of the device's memory to leave for other programs."
    )
    memory: Literal["auto", "low", "lowest"] = Field(
        "auto",
        description="How much to save the device's memory: auto saves only what is necessary, low "
        "keeps models in 8 bits, lowest loads them onto the card layer by layer.",
    )
    preview_every: int = Field(
        3, ge=0, le=100, description="Steps between live previews; 0 shows none."
    )
    pictures_carry: Literal["", "everything", "text", "nothing"] = Field(
        "",
        description="What new image files say about how they were made: everything, text (A1111's "
        "only) or nothing. Empty uses the page owner's choice, at first everything.",
    )
    mark_ai: bool | None = Field(
        None,
        description="Whether new images are marked as made with AI, as defined by IPTC. Empty "
        "uses the page owner's choice, at first yes.",
    )
    comfyui_graphs: bool | None = Field(
        None,
        description="Whether new images also carry a workflow that ComfyUI opens. Empty uses the "
        "page owner's choice, at first no.",
    )
    bin_days: int | None = Field(
        None,
        ge=0,
        le=MAX_BIN_DAYS,
        description="Days that images stay in the bin before they are deleted; 0 keeps them until "
        "it is emptied. Empty uses the page owner's choice, at first 30.",
    )
    guest_jobs: int = Field(
        8, ge=1, le=10_000, description="Jobs that one guest can have running or waiting."
    )
    all_guests_jobs: int = Field(
        24, ge=1, le=10_000, description="The same for all guests together."
    )
    guest_megapixels: float = Field(
        24, gt=0, le=64, description="Million pixels of an image that a guest can send."
    )
    guest_upload_mb: int = Field(
        200, ge=1, le=1_000_000, description="MiB of files that one guest can have here at a time."
    )
    all_guests_upload_mb: int = Field(
        1000, ge=1, le=1_000_000, description="The same for all guests together."
    )
    guest_requests_per_second: float = Field(
        10, ge=5, le=10_000, description="Requests a second of one guest, on average."
    )
    guest_sessions: int = Field(
        8, ge=1, le=1000, description="Pages that one guest can have open at a time."
    )
    guest_events: int = Field(
        8, ge=1, le=1000, description="Actions of one guest that are handled at a time."
    )

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        """Take an IPv6 address with the brackets that addresses of pages have, and without."""
        host = host.strip()
        name = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        if not _is_host(name) and not _is_address(name):
            raise ValueError(
                "write a name or an address alone, such as 0.0.0.0 or ::1, and the port as --port"
            )
        return name

    @field_validator("allow_hosts")
    @classmethod
    def _check_allowed_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(host.strip().lower().strip("[]") for host in hosts)
        for name in names:
            if not _is_host(name.removeprefix("*.")) and not _is_address(name):
                raise ValueError("write only the name: studio.example.com or *.example.com")
        return names

    @field_validator("root_path")
    @classmethod
    def _check_root_path(cls, path: str) -> str:
        path = path.strip().strip("/")
        if path and not re.fullmatch(r"[\w.~@%-]+(/[\w.~@%-]+)*", path):
            raise ValueError("write a path such as /studio, without a host")
        return f"/{path}" if path else ""

    @field_validator("trusted_proxies")
    @classmethod
    def _check_proxies(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        parse_proxies(proxies)
        return proxies

    @field_validator("allow_embedding")
    @classmethod
    def _check_sites(cls, sites: tuple[str, ...]) -> tuple[str, ...]:
        for site in sites:
            if not re.fullmatch(r"https?://(\*\.)?[\w.-]+(:\d+)?", site):
                raise ValueError("write a site such as https://example.org, without a path")
        return sites

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return init_settings, env_settings

    @property
    def guest_pixels(self) -> int:
        """Pixels of an image that a guest may send."""
        return round(self.guest_megapixels * 1e6)

    @property
    def outputs(self) -> Path:
        """Generated images.

        The page serves this folder, `thumbs`, `inputs`, `sweeps`, `runs` and `loras`, and no other.
        """
        return self.home / "outputs"

    @property
    def thumbs(self) -> Path:
        """Small versions of the generated images."""
        return self.home / "thumbs"

    @property
    def inputs(self) -> Path:
        """Images and masks to work on, by their sha256."""
        return self.home / "inputs"

    @property
    def uploads(self) -> Path:
        """What browsers have sent, until it is used; and what the page hands out for once."""
        return self.home / "uploads"

    @property
    def sweeps(self) -> Path:
        """Sheets and viewers, a folder for each sweep."""
        return self.home / "sweeps"

    @property
    def runs(self) -> Path:
        """Trainings, a folder for each: its settings, log, samples and checkpoints."""
        return self.home / "runs"

    @property
    def models(self) -> Path:
        """Checkpoints, a folder for each."""
        return self.home / "models"

    @property
    def loras(self) -> Path:
        """LoRA files."""
        return self.home / "loras"

    @property
    def vaes(self) -> Path:
        """Autoencoders to choose instead of a model's own."""
        return self.home / "vae"

    @property
    def text_encoders(self) -> Path:
        """Text encoders for models that come without."""
        return self.home / "text_encoders"

    @property
    def embeddings(self) -> Path:
        """Textual inversions."""
        return self.home / "embeddings"

    @property
    def upscalers(self) -> Path:
        """Networks that enlarge images."""
        return self.home / "upscalers"

    @property
    def presets(self) -> Path:
        """The user's presets, a folder for each kind."""
        return self.home / "presets"


@functools.cache
def parse_proxies(
    proxies: tuple[str, ...],
) -> tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...]:
    """Return addresses and networks (10.0.0.0/8) as networks. Raises ValueError for others."""
    try:
        return tuple(ipaddress.ip_network(proxy.strip("[] "), strict=False) for proxy in proxies)
    except ValueError:
        raise ValueError("write an address or a network, such as 127.0.0.1 or 10.0.0.0/8") from None


def _is_host(name: str) -> bool:
    labels = name.rstrip(".").split(".")
    return len(name) < 254 and all(
        re.fullmatch(r"[^\W_]([\w-]{0,61}\w)?", label) for label in labels
    )


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def load(**flags: Any) -> Settings:
    """Return the settings from all their sources, and create the home's folders.

    Args:
        flags: Settings that were given on the command line; None stands for one that was not.

    Raises:
        InvalidSpec: A bad value.
        BadFile: A studio.toml that cannot be read, or a home that cannot be created.
    """
    overrides = {name: value for name, value in flags.items() if value is not None}
    home_text = overrides.get("home") or os.environ.get("STUDIO_HOME") or "~/studio-home"
    home = _resolve_home(home_text)
    values = {**_read_settings_file(home / "studio.toml"), **overrides, "home": home}
    try:
        settings = Settings(**values)
    except ValidationError as error:
        raise InvalidSpec([_format_fault(dict(fault)) for fault in error.errors()]) from None
    except SettingsError as error:
        name = re.search(r'field "(\w+)"', str(error))
        variable = f"{ENVIRONMENT_PREFIX}{name[1].upper()}" if name else "A STUDIO_ variable"
        raise InvalidSpec([f'{variable} must be a list, such as ["…", "…"].']) from None
    _create_folders(settings)
    return settings


def _resolve_home(text: str | Path) -> Path:
    """Return the home's folder, which need not be there yet. Raises BadFile."""
    try:
        home = Path(text).expanduser()
        if home.is_symlink() and not home.exists():
            # Made behind the link it would lie where a disk is missing.
            raise BadFile(
                f"The home folder {home} is a link to {home.readlink()}, which does not exist. "
                "Connect its disk, move the link away, or choose another with --home."
            )
        return home.resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a circle, a NUL, no such user
        raise BadFile(
            f"The home folder {quote(str(text))} cannot be used: {str(error).rstrip('.')}. Choose "
            "another with --home."
        ) from None


def _read_settings_file(path: Path) -> dict[str, Any]:
    """Return the values of a studio.toml but for those that an environment variable sets."""
    if not os.path.lexists(path):
        return {}
    try:
        if not path.is_file():  # a pipe would never answer
            raise OSError("it is not a file")
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            raise ValueError(f"it has more than {MAX_SETTINGS_BYTES:,} bytes")
        values = load_toml(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadFile(f"{path} cannot be read: {error}. Fix it or move it away.") from None
    for variable in os.environ:
        if variable.startswith(ENVIRONMENT_PREFIX):
            values.pop(variable.removeprefix(ENVIRONMENT_PREFIX).lower(), None)
    return values


def _format_fault(fault: dict[str, Any]) -> str:
    name = ".".join(map(str, fault["loc"]))
    message = str(fault["msg"]).removeprefix("Value error, ")
    if fault["type"] == "tuple_type":
        message = 'write a list, such as ["…", "…"]'
    if name.partition(".")[0] in ("auth", "guests"):  # a password is not for the log
        return f"Setting {name}: {message}."
    return f"Setting {name}: {message} (you entered {quote(fault['input'])})."


def _create_folders(settings: Settings) -> None:
    folders = (
        settings.home,
        settings.outputs,
        settings.thumbs,
        settings.inputs,
        settings.sweeps,
        settings.runs,
        settings.models,
        settings.loras,
        settings.vaes,
        settings.text_encoders,
        settings.embeddings,
        settings.upscalers,
        settings.presets / "pictures",
        settings.presets / "sweeps",
        settings.presets / "training",
    )
    for folder in folders:
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            _check_not_in_the_way(folder)
            raise BadFile(
                f"The home folder {settings.home} cannot be created: {error.strerror}. Choose "
                "another with --home."
            ) from None
    for name in LATER_FOLDERS:
        _check_not_in_the_way(settings.home / name)


def _check_not_in_the_way(folder: Path) -> None:
    """Raise BadFile where something that is no folder has a folder's name."""
    for path in (folder, *folder.parents):
        if path.is_symlink() and not path.exists():
            raise BadFile(f"{path} is a broken link where a folder should be; move it away.")
        if path.exists() and not path.is_dir():
            raise BadFile(f"{path} is a file where a folder should be; move it away.")
