"""Any endpoint that speaks as OpenAI's chat completions, on this machine or elsewhere.

On this machine that is llama.cpp, LM Studio, Ollama or vLLM.

Knows: how an image and a question are sent and the answer read, what is tried again and what is
not.
Does not know: datasets; where the address comes from: nobody else is contacted, no redirect is
followed.

The key is read from STUDIO_CAPTION_KEY, sent to the named address alone, and stands in no job,
file, log or message. An image is sent as a JPEG of at most 1024 pixels a side, without anything
else that its file says. An answer counts from the moment it is complete: it is passed on at once,
also one that comes after a stop, so that nothing is sent again that was answered.
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
from studio.engine.captioning.captioner import CaptionCallback
from studio.errors import StudioError, quote

API_KEY_VARIABLE = "STUDIO_CAPTION_KEY"
DEFAULT_INSTRUCTION = (
    "Describe this picture in one plain sentence, as a caption for training. "
    "Answer with the caption alone."
)
COMPLETIONS_PATH = "/chat/completions"
LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")
MAX_SIDE_PX = 1024  # of the JPEG that is sent
JPEG_QUALITY = 92
CONNECT_TIMEOUT_SECONDS = 10.0
RESPONSE_TIMEOUT_SECONDS = 180.0  # for the complete answer
MAX_ATTEMPTS = 5
# The delay doubles from attempt to attempt, unless the endpoint names one.
RETRY_DELAY_SECONDS = 1.0
MAX_RETRY_DELAY_SECONDS = 60.0
MAX_RESPONSE_BYTES = 2**20
MAX_ERROR_CHARS = 200  # of what an endpoint says of an error
RETRY_STATUSES = {408, 409, 425, 429, 500, 502, 503, 504, 529}
REJECTED_STATUSES = {400, 413, 415, 422}  # one image or question is not taken; others may be


class ImageRejected(Exception):
    """One image that the endpoint does not caption, and why."""


class Captioner:
    """One endpoint. Threads send several images at once."""

    kind = ENDPOINT

    def __init__(self, address: str) -> None:
        """Prepare for an address such as http://127.0.0.1:1234/v1; nothing is sent yet."""
        path = "" if address.endswith(COMPLETIONS_PATH) else COMPLETIONS_PATH
        self._url = httpx.URL(address + path)
        key = _read_api_key()
        self._client = httpx.Client(
            timeout=httpx.Timeout(RESPONSE_TIMEOUT_SECONDS, connect=CONNECT_TIMEOUT_SECONDS),
            follow_redirects=False,
            # The machine's own proxy is the user's choice for the outside world; what is on this
            # machine is asked directly.
            trust_env=self._url.host not in LOCAL_HOSTS,
            headers={"Authorization": f"Bearer {key}"} if key else {},
        )

    def prepare_image(self, image: Image.Image, spec: CaptionSpec) -> str:
        """Return an image as it is sent: a JPEG as a data URL."""
        small_image = image.copy()
        small_image.thumbnail((MAX_SIDE_PX, MAX_SIDE_PX), Image.Resampling.LANCZOS)
        buffer = io.BytesIO()
        small_image.save(buffer, "JPEG", quality=JPEG_QUALITY)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    def caption_images(
        self,
        images: Sequence[str],
        spec: CaptionSpec,
        check_cancelled: Callable[[], None],
        on_captions: CaptionCallback,
    ) -> dict[int, str]:
        """Caption prepared images, each in a request of its own.

        Args:
            images: Images from `prepare_image`.
            spec: Model, instruction, number of tokens, and how many are sent at once.
            check_cancelled: Called ten times a second; may raise to stop.
            on_captions: Receives captions by the index of their image, from any thread.

        Returns:
            The images that were rejected, by index, with the reason.

        Raises:
            StudioError: For what concerns all images.
        """
        stop_event = threading.Event()
        num_threads = min(len(images), spec.batch or CAPTIONERS[ENDPOINT].default_batch_size)
        pool = ThreadPoolExecutor(num_threads)

        def caption_image(index: int, image_url: str) -> None:
            on_captions({index: self._request_caption(image_url, spec, stop_event)})

        index_of: dict[Future[None], int] = {
            pool.submit(caption_image, index, image_url): index
            for index, image_url in enumerate(images)
        }
        try:
            pending = set(index_of)
            while pending:
                finished, pending = wait(pending, timeout=0.1)
                for future in finished:
                    error = future.exception()
                    if error and not isinstance(error, ImageRejected):
                        raise error
                check_cancelled()
        finally:
            stop_event.set()  # what waits to try again need not
            # What is on its way may still be answered, and is then passed on.
            pool.shutdown(wait=False, cancel_futures=True)
        errors = {index: future.exception() for future, index in index_of.items()}
        return {index: str(error) for index, error in errors.items() if error}

    def _request_caption(
        self, image_url: str, spec: CaptionSpec, stop_event: threading.Event
    ) -> str:
        """Return one image's caption, after as many attempts as it takes.

        Raises ImageRejected and StudioError.
        """
        payload = _build_payload(image_url, spec)
        for attempt in range(1, MAX_ATTEMPTS + 1):
            delay = min(MAX_RETRY_DELAY_SECONDS, RETRY_DELAY_SECONDS * 2 ** (attempt - 1))
            try:
                status, headers, body = self._post(payload)
            except httpx.TransportError as error:
                reason = f"cannot be reached ({type(error).__name__}: {error!s:.120})"
            else:
                if status == 200:
                    return _parse_caption(body)
                reason = f"answers {status}{_parse_error(body)}"
                if status in REJECTED_STATUSES:
                    raise ImageRejected(f"The endpoint {reason}.")
                if status not in RETRY_STATUSES:
                    hint = _format_hint(status, headers)
                    raise StudioError(f"The endpoint {self._base_url} {reason}.{hint}")
                delay = _parse_retry_after(headers, delay)
            if attempt < MAX_ATTEMPTS and stop_event.wait(delay):
                break
        raise StudioError(
            f"The endpoint {self._base_url} {reason}, even after {MAX_ATTEMPTS} attempts. "
            "Finished captions are kept; caption again later to continue."
        )

    def _post(self, payload: dict[str, Any]) -> tuple[int, httpx.Headers, bytes]:
        """Return status, headers and body of one request. Raises httpx.TransportError."""
        deadline = time.monotonic() + RESPONSE_TIMEOUT_SECONDS
        body = b""
        with self._client.stream("POST", self._url, json=payload) as response:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > MAX_RESPONSE_BYTES:
                    raise StudioError(
                        f"The endpoint {self._base_url} answers with more than "
                        f"{MAX_RESPONSE_BYTES // 2**20} MiB; check Address."
                    )
                if time.monotonic() > deadline:
                    raise httpx.ReadTimeout(
                        f"no complete answer within {RESPONSE_TIMEOUT_SECONDS:.0f} s"
                    )
            return response.status_code, response.headers, body

    @property
    def _base_url(self) -> str:
        return str(self._url).removesuffix(COMPLETIONS_PATH)


def _read_api_key() -> str:
    return os.environ.get(API_KEY_VARIABLE, "").strip()


def _build_payload(image_url: str, spec: CaptionSpec) -> dict[str, Any]:
    content = [
        {"type": "text", "text": spec.instruction or DEFAULT_INSTRUCTION},
        {"type": "image_url", "image_url": {"url": image_url}},
    ]
    payload: dict[str, Any] = {
        "model": spec.model,
        "messages": [{"role": "user", "content": content}],
    }
    if spec.tokens:
        payload["max_tokens"] = spec.tokens
    return payload


def _parse_caption(body: bytes) -> str:
    """Return what an answer says. Raises ImageRejected where it says nothing."""
    try:
        content = json.loads(body)["choices"][0]["message"]["content"]
        if isinstance(content, list):  # in parts
            content = " ".join(str(part["text"]) for part in content if part.get("type") == "text")
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, RecursionError):
        raise ImageRejected(
            f"The endpoint's answer is not a chat completion: {body[:80]!r}."
        ) from None
    if not isinstance(content, str) or not content.strip():
        raise ImageRejected("The endpoint returned no caption for it.")
    return content


def _parse_error(body: bytes) -> str:
    """Return what an endpoint says of an error, if it says it as OpenAI does, without the key."""
    try:
        error = json.loads(body)["error"]
        message = error["message"] if isinstance(error, dict) else error
    except (ValueError, KeyError, TypeError, RecursionError):
        return ""
    text = " ".join(str(message).encode("utf-8", "replace").decode().split())
    key = _read_api_key()
    if key:  # some endpoints repeat it
        text = text.replace(key, "…")
    return f" ({text[:MAX_ERROR_CHARS]})"


def _format_hint(status: int, headers: httpx.Headers) -> str:
    """Return what a user may do about a status."""
    if status in (401, 403):
        if os.environ.get(API_KEY_VARIABLE):
            return f" Check the key in the environment variable {API_KEY_VARIABLE}."
        return (
            f" Set the environment variable {API_KEY_VARIABLE} to its key, and restart the studio."
        )
    if 300 <= status < 400:
        target = headers.get("location", "nowhere")
        return f" It redirects to {quote(target, 120)}; if you trust that, enter it as Address."
    return " Check Address, such as http://127.0.0.1:1234/v1, and Endpoint model."


def _parse_retry_after(headers: httpx.Headers, min_delay: float) -> float:
    """Return the delay that an endpoint asks for (Retry-After, in seconds), within reason."""
    try:
        delay = float(headers.get("retry-after", "0"))
    except ValueError:
        return min_delay
    return min(MAX_RETRY_DELAY_SECONDS, max(min_delay, delay))
