"""Any endpoint that speaks as OpenAI's chat completions: on this machine (llama.cpp, LM Studio, Ollama, vLLM) or elsewhere.

Knows: how a picture and a question are sent and the answer read, what is tried again and what is not.
Does not know: datasets; where the address comes from: nobody else is contacted, no redirect is followed.

The key is read from STUDIO_CAPTION_KEY, sent to the named address alone, and stands in no job, file, log or message. A picture is
sent as a JPEG of at most 1024 pixels a side, without anything else that its file says. An answer counts from the moment it is
whole: it is told at once, also one that comes after a stop, so that nothing is sent again that was answered.
"""

from __future__ import annotations

import base64
import io
import json
import os
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any

import httpx
from PIL import Image

from studio.core.captions.spec import CaptionSpec
from studio.core.catalog import CAPTIONERS, ENDPOINT
from studio.engine.captioning.transformers_captioner import Heard
from studio.errors import StudioError

KEY = "STUDIO_CAPTION_KEY"
USUAL = "Describe this picture in one plain sentence, as a caption for training. Answer with the caption alone."
SIDE, QUALITY = 1024, 92  # of the JPEG that is sent
CONNECT, ANSWER = 10.0, 180.0  # seconds to reach it; for the whole answer
TRIES, PAUSE, LONGEST_PAUSE = (
    5,
    1.0,
    60.0,
)  # the pause doubles from try to try, unless the endpoint names one
MOST_BYTES = 2**20  # of an answer
AGAIN = {408, 409, 425, 429, 500, 502, 503, 504, 529}
REFUSED = {400, 413, 415, 422}  # one picture or question is not taken; others may be


class Refused(Exception):
    """One picture that the endpoint does not caption, and why."""


class Captioner:
    """One endpoint. Threads send several pictures at once."""

    kind = ENDPOINT

    def __init__(self, address: str) -> None:
        path = "" if address.endswith("/chat/completions") else "/chat/completions"
        self._url = httpx.URL(address + path)
        key = os.environ.get(KEY, "").strip()
        # The machine's own proxy is the user's choice for the outside world; what is on this machine is asked directly.
        outside = self._url.host not in ("localhost", "127.0.0.1", "::1")
        self._client = httpx.Client(
            timeout=httpx.Timeout(ANSWER, connect=CONNECT),
            follow_redirects=False,
            trust_env=outside,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def look(self, picture: Image.Image, asked: CaptionSpec) -> str:
        """A picture as it is sent."""
        small = picture.copy()
        small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
        small.save(out := io.BytesIO(), "JPEG", quality=QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()

    def caption(
        self, looks: Sequence[str], asked: CaptionSpec, beat: Callable[[], None], heard: Heard
    ) -> dict[int, str]:
        """Tell `heard` each answer when it comes, from whatever thread. Gives the pictures that were refused, with the reason.

        `beat` is called ten times a second and may raise. Raises StudioError for what concerns all pictures.
        """
        ended, pool = (
            threading.Event(),
            ThreadPoolExecutor(min(len(looks), asked.batch or CAPTIONERS[ENDPOINT].batch)),
        )

        def one(number: int, look: str) -> None:
            heard({number: self._asked(look, asked, ended)})

        sent: dict[Future[None], int] = {
            pool.submit(one, number, look): number for number, look in enumerate(looks)
        }
        try:
            open_ = set(sent)
            while open_:
                done, open_ = wait(open_, timeout=0.1)
                for future in done:
                    if (error := future.exception()) and not isinstance(error, Refused):
                        raise error
                beat()
        finally:
            ended.set()  # what waits to try again need not
            pool.shutdown(
                wait=False, cancel_futures=True
            )  # what is on its way may still be answered, and is then told
        return {
            number: str(error) for future, number in sent.items() if (error := future.exception())
        }

    def _asked(self, look: str, asked: CaptionSpec, ended: threading.Event) -> str:
        """One picture's caption, after as many tries as it takes. Raises Refused and StudioError."""
        told: dict[str, Any] = {
            "model": asked.model,
            "messages": [
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": asked.instruction or USUAL},
                        {"type": "image_url", "image_url": {"url": look}},
                    ],
                }
            ],
        }
        if asked.tokens:
            told["max_tokens"] = asked.tokens
        for tried in range(1, TRIES + 1):
            pause = min(LONGEST_PAUSE, PAUSE * 2 ** (tried - 1))
            try:
                status, headers, body = self._sent(told)
            except httpx.TransportError as error:
                why = f"cannot be reached ({type(error).__name__}: {error!s:.120})"
            else:
                if status == 200:
                    return _words(body)
                why = f"answers {status}{_reason(body)}"
                if status in REFUSED:
                    raise Refused(f"The endpoint {why}.")
                if status not in AGAIN:
                    raise StudioError(f"The endpoint {self._named} {why}.{_hint(status, headers)}")
                pause = _asked_pause(headers, pause)
            if tried < TRIES and ended.wait(pause):
                break
        raise StudioError(
            f"The endpoint {self._named} {why}, also when tried {TRIES} times. What was captioned is kept; "
            "caption again later, and it goes on there."
        )

    def _sent(self, told: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Status, headers and body of one request. Raises httpx.TransportError."""
        end, body = time.monotonic() + ANSWER, b""
        with self._client.stream("POST", self._url, json=told) as answer:
            for part in answer.iter_bytes():
                body += part
                if len(body) > MOST_BYTES:
                    raise StudioError(
                        f"The endpoint {self._named} answers with more than {MOST_BYTES // 2**20} MiB; "
                        "is it the right address?"
                    )
                if time.monotonic() > end:
                    raise httpx.ReadTimeout(f"no whole answer in {ANSWER:.0f} s")
            return answer.status_code, answer.headers, body

    @property
    def _named(self) -> str:
        return str(self._url).removesuffix("/chat/completions")


def _words(body: bytes) -> str:
    """What an answer says. Raises Refused where it says nothing."""
    try:
        said = json.loads(body)["choices"][0]["message"]["content"]
        if isinstance(said, list):  # in parts
            said = " ".join(str(part["text"]) for part in said if part.get("type") == "text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise Refused(
            f"The endpoint's answer is not one of chat completions: {body[:80]!r}."
        ) from None
    if not isinstance(said, str) or not said.strip():
        raise Refused("The endpoint said nothing about it.")
    return said


def _reason(body: bytes) -> str:
    """What an endpoint says of an error, if it says it as OpenAI does; some repeat the key in it."""
    try:
        error = json.loads(body)["error"]
        said = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    plain = " ".join(str(said).encode("utf-8", "replace").decode().split())
    key = os.environ.get(KEY, "").strip()
    return f" ({(plain.replace(key, '…') if key else plain)[:200]})"


def _hint(status: int, headers: httpx.Headers) -> str:
    if status in (401, 403):
        return (
            f" Is the right key in the environment, as {KEY}?"
            if os.environ.get(KEY)
            else f" Give its key in the environment, as {KEY}, and start the studio again."
        )
    if 300 <= status < 400:
        return f" It sends on to {headers.get('location', 'nowhere')!r:.120}; if you trust that, give it as the address."
    return " Is the address right, such as http://127.0.0.1:1234/v1, and the model?"


def _asked_pause(headers: httpx.Headers, pause: float) -> float:
    """The pause that an endpoint asks for (Retry-After, in seconds), within reason."""
    try:
        return min(LONGEST_PAUSE, max(pause, float(headers.get("retry-after", "0"))))
    except ValueError:
        return pause
