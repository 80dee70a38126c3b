# SPDX-License-Identifier: Apache-2.0
"""The assistant: any OpenAI-compatible endpoint that looks at a few frames and writes texts.

It is off until the settings say ``allow_network = true`` and name an endpoint, and nothing leaves
before somebody has read what, and to which host, and agreed::

    letter = vfx_letter(endpoint, "add a whale", pictures)
    letter.tells                        # host, model, frames and the whole text, in sentences
    read_suggestion(post(letter))       # leaves now

What comes back is text of a stranger: it is checked strictly, becomes values of knobs and nothing
else, and an artist sees it before a job is made of it. Redirections are not followed, since they
would take the frames to another host.

Source: DynVFX §4.1 and app. A.3, E.1: one question that lets the model talk with a visual effects
artist before it answers, with the composition prompt, the prominent objects of the source and the
object that is added; its words are this project's own.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import queue
import re
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from gencomp_protocol.errors import BadKnob, ToolFailed
from gencomp_protocol.sockets import is_loopback

log = logging.getLogger(__name__)

LONGEST_INSTRUCTION = 2000
_MOST_ANSWER_BYTES = 1 << 20
_READ_BYTES = 1 << 16
_MOST_PROMPT_CHARACTERS = 4000
_MOST_NAME_CHARACTERS = 200
_MOST_OBJECTS = 16
_SAID_CHARACTERS = 200
_FENCE = re.compile(r"\A```(?:json)?\s*\n(.*)\n```\Z", re.DOTALL)
_CURE = "Ask again, choose another assistant_model, or type the texts yourself."

_VFX_GUIDE = """\
You help a visual effects artist add something new to a filmed shot. You are given a few frames of
the shot in order, and what the artist wants added.

First imagine a short talk between yourself and an experienced compositor about how the new content
belongs into this shot. Settle three things in it: where it goes and how it moves, given what is
there and how that and the camera move; what of the original stays exactly as it does now; and how
light, weather and mood bind old and new together. Do not write the talk down.

Then answer with one JSON object and nothing else, with these keys:
"source_prompt": the shot as it is, in 90 to 95 words.
"prompt": the shot with the new content in it, in 90 to 95 words. It names what was there and what
it does, what is new and what that does, and how they touch each other.
"source_objects": a list of one to four things that stand out in the original shot, a noun or two
each.
"target_object": what is added, in a few words that tell it apart from everything that was there;
name its shadow or reflection too, if it has one.
"""
_CAPTION_GUIDE = """\
You are given a few frames of a film clip in order. Describe the clip in one paragraph of 60 to 90
words: what is seen, what it does, how the camera moves, light and setting. Answer with one JSON
object and nothing else, with the key "caption".
"""


@dataclass(frozen=True)
class Endpoint:
    """Where the assistant is.

    Attributes:
        url: Base address: ``https://host/v1``.
        model: Which of its models.
        key: What it knows us by; empty for none. Never shown, never logged.
        timeout_s: How long an answer may take, from first byte sent to last byte read.
    """

    url: str
    model: str
    key: str = ""
    timeout_s: float = 120.0

    @property
    def host(self) -> str:
        """Return host and port."""
        return urllib.parse.urlsplit(self.url).netloc.rpartition("@")[2]

    @property
    def is_private(self) -> bool:
        """Tell whether nobody on the way can read what is sent."""
        parts = urllib.parse.urlsplit(self.url)
        return parts.scheme == "https" or is_loopback(parts.hostname or "")

    @property
    def address(self) -> str:
        """Return where a question is sent."""
        return f"{self.url.rstrip('/')}/chat/completions"

    def __repr__(self) -> str:
        """Return what may stand in a log: no key."""
        return f"Endpoint({self.host}, {self.model})"


@dataclass(frozen=True)
class Picture:
    """One frame that would leave.

    Attributes:
        label: What it is: ``plate frame 1001``.
        width: In pixels, as it leaves.
        height: In pixels, as it leaves.
        png: The file.
    """

    label: str
    width: int
    height: int
    png: bytes


@dataclass(frozen=True)
class Letter:
    """One question, whole: nothing but this leaves.

    Attributes:
        endpoint: Where it goes.
        guide: What the model is told to do.
        text: What is asked of it.
        pictures: The frames, in order.
    """

    endpoint: Endpoint
    guide: str
    text: str
    pictures: tuple[Picture, ...]

    @property
    def tells(self) -> tuple[str, ...]:
        """Return what an artist reads before it leaves: host, frames, every word."""
        endpoint = self.endpoint
        size = sum(len(one.png) for one in self.pictures)
        way = _proxy_of(endpoint.url)
        open_to_all = not endpoint.is_private
        frames = (f"  {one.label}, {one.width}x{one.height}" for one in self.pictures)
        return (
            f"To {endpoint.host}, model {endpoint.model}"
            + (f", through the proxy {way}" if way else "")
            + (", not encrypted, so that anybody on the way can read it:" if open_to_all else ":"),
            f"{len(self.pictures)} pictures, {size / 1000:.0f} kB:",
            *frames,
            "This text:",
            *(f"  {line}" for line in f"{self.guide.rstrip()}\n\n{self.text}".splitlines()),
        )


@dataclass(frozen=True)
class Suggestion:
    """What the assistant proposes for a DynVFX job.

    Attributes:
        prompt: The shot with the new content.
        source_prompt: The shot as it is; may be empty.
        source_objects: What stands out in it.
        target_object: What is added.
    """

    prompt: str
    source_prompt: str
    source_objects: tuple[str, ...]
    target_object: str

    def knobs(self, instruction: str) -> dict[str, str]:
        """Return the same as values of the system's knobs."""
        return {
            "instruction": instruction,
            "prompt": self.prompt,
            "source_prompt": self.source_prompt,
            "source_objects": ", ".join(self.source_objects),
            "target_object": self.target_object,
        }


# --- asking --------------------------------------------------------------------------------------


def endpoint_of(
    *, allow_network: bool, url: str, model: str, key_file: str = "", timeout_s: float = 120.0
) -> Endpoint:
    """Return the endpoint that the settings name.

    Raises:
        BadKnob: The network is not allowed, or a setting is missing or no address, or the key
            cannot be read; names the setting.
    """
    if not allow_network:
        raise BadKnob(
            "The assistant is off, because setting 'allow_network' is false.",
            hint="Type the prompt yourself, or set allow_network = true and name an endpoint.",
        )
    for name, value in (("assistant_url", url), ("assistant_model", model)):
        if not value.strip():
            raise BadKnob(f"The assistant needs setting '{name}', which is empty.")
    _check_url(url.strip())
    return Endpoint(url.strip(), model.strip(), _key_in(key_file), timeout_s)


def _check_url(url: str) -> None:
    """Refuse what is no address of an endpoint; a name or password in it is not shown."""
    if "@" in url:
        raise BadKnob(
            "Setting 'assistant_url' holds a name or password, which is not taken.",
            hint="Put the key into a file and name that in assistant_key_file.",
        )
    try:
        parts = urllib.parse.urlsplit(url)
        is_whole = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # a port of letters or beyond 65535, a bracket that does not close
        is_whole = False
    is_plain = url.isascii() and url.isprintable() and not set(url) & set(" ?#")
    if not is_whole or not is_plain:
        raise BadKnob(
            f"Setting 'assistant_url' is '{url}', which is no address of an endpoint.",
            hint="Write it as https://host/v1.",
        )


def _key_in(place: str) -> str:
    """Return the first line of a key file."""
    if not place.strip():
        return ""
    try:
        lines = Path(place.strip()).expanduser().read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        why = getattr(error, "strerror", None) or "it is not text"
        raise BadKnob(
            f"Setting 'assistant_key_file' names {place}, which cannot be read ({why})."
        ) from error
    key = lines[0].strip()
    if not key or not key.isascii() or not key.isprintable():
        raise BadKnob(f"The first line of {place}, setting 'assistant_key_file', is no key.")
    return key


def vfx_letter(endpoint: Endpoint, instruction: str, pictures: Sequence[Picture]) -> Letter:
    """Return the question that turns an instruction into the texts of a DynVFX job.

    Raises:
        BadKnob: The instruction is empty, or longer than anybody would read.
    """
    asked = " ".join(instruction.split())
    if not asked:
        raise BadKnob(
            "There is no instruction, so the assistant has nothing to do.",
            hint='Say what should be added: --instruction "a whale breaches behind the boat".',
        )
    if len(asked) > LONGEST_INSTRUCTION:
        raise BadKnob(
            f"The instruction has {len(asked)} characters, allowed are {LONGEST_INSTRUCTION}."
        )
    return Letter(endpoint, _VFX_GUIDE, f"The artist wants: {asked}", tuple(pictures))


def caption_letter(endpoint: Endpoint, pictures: Sequence[Picture]) -> Letter:
    """Return the question for a clip's caption."""
    return Letter(endpoint, _CAPTION_GUIDE, "Describe this clip.", tuple(pictures))


def suggest(
    endpoint: Endpoint,
    instruction: str,
    pictures: Sequence[Picture],
    agreed: Callable[[Letter], bool],
) -> Suggestion | None:
    """Ask for the texts of a DynVFX job; None where nobody agreed, and then nothing left.

    Args:
        endpoint: Where to ask.
        instruction: What the artist wants added.
        pictures: A few frames of the plate.
        agreed: Shows ``letter.tells`` to somebody and returns what they say.

    Raises:
        BadKnob: See :func:`vfx_letter`.
        ToolFailed: See :func:`post` and :func:`read_suggestion`.
    """
    letter = vfx_letter(endpoint, instruction, pictures)
    return read_suggestion(post(letter), endpoint.host) if agreed(letter) else None


def caption(
    endpoint: Endpoint, pictures: Sequence[Picture], agreed: Callable[[Letter], bool]
) -> str | None:
    """Ask for a clip's caption; None where nobody agreed, and then nothing left.

    Raises:
        ToolFailed: The endpoint fails, or its answer is none.
    """
    letter = caption_letter(endpoint, pictures)
    return read_caption(post(letter), endpoint.host) if agreed(letter) else None


def post(letter: Letter) -> str:
    """Send a question and return what the model said.

    Raises:
        ToolFailed: Nobody answers, not in time, with an error, cut short, too much, or what is no
            answer of such an endpoint; names the host.
    """
    endpoint = letter.endpoint
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if endpoint.key:
        headers["Authorization"] = f"Bearer {endpoint.key}"
    body = json.dumps(_body(letter)).encode()
    request = urllib.request.Request(endpoint.address, body, headers, method="POST")
    log.info("asking %s, %d pictures", endpoint.host, len(letter.pictures))
    return _without_key(_said_in(_answer(request, endpoint), endpoint.host), endpoint)


def _body(letter: Letter) -> dict[str, Any]:
    """Return the request as such endpoints take it."""
    parts: list[dict[str, Any]] = [{"type": "text", "text": letter.text}]
    for one in letter.pictures:
        data = base64.b64encode(one.png).decode("ascii")
        parts.append({"type": "text", "text": one.label})
        url = {"url": f"data:image/png;base64,{data}"}
        parts.append({"type": "image_url", "image_url": url})
    return {
        "model": letter.endpoint.model,
        "messages": [
            {"role": "system", "content": letter.guide},
            {"role": "user", "content": parts},
        ],
        "stream": False,
    }


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows nothing: a redirection arrives as the error that it is here."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Refuse."""


def _proxy_of(url: str) -> str:
    """Return the proxy that the environment puts between us and an address; empty for none."""
    parts = urllib.parse.urlsplit(url)
    if urllib.request.proxy_bypass(parts.hostname or ""):
        return ""
    proxy = urllib.request.getproxies().get(parts.scheme, "")
    return urllib.parse.urlsplit(proxy).netloc.rpartition("@")[2] or proxy


def _answer(request: urllib.request.Request, endpoint: Endpoint) -> bytes:
    """Return the answer's bytes, or stop waiting for them when the time is up.

    A socket's own timeout begins anew with every byte, and finding a host's address has none. So a
    thread of its own asks; where it is left, it ends with the connection or with this process.
    """
    came: queue.SimpleQueue[bytes | Exception] = queue.SimpleQueue()

    def ask() -> None:
        try:
            came.put(_sent(request, endpoint))
        except Exception as error:
            came.put(error)

    threading.Thread(target=ask, name="assistant", daemon=True).start()
    try:
        found = came.get(timeout=endpoint.timeout_s)
    except queue.Empty as error:
        _fail(endpoint.host, _late(endpoint), error)
    if isinstance(found, Exception):
        raise found
    return found


def _sent(request: urllib.request.Request, endpoint: Endpoint) -> bytes:
    """Return the answer's bytes."""
    opener = urllib.request.build_opener(_NoRedirect)
    deadline = time.monotonic() + endpoint.timeout_s
    try:
        with opener.open(request, timeout=endpoint.timeout_s) as answer:
            return _read(answer, deadline, endpoint)
    except urllib.error.HTTPError as error:
        words = _quoted(_refusal_in(error), endpoint) or _quoted(str(error.reason), endpoint)
        _fail(endpoint.host, f"refused with {error.code}: {words}", error)
    except TimeoutError as error:
        _fail(endpoint.host, _late(endpoint), error)
    except urllib.error.URLError as error:
        if isinstance(error.reason, TimeoutError):
            _fail(endpoint.host, _late(endpoint), error)
        _fail(endpoint.host, f"does not answer ({error.reason})", error)
    except (http.client.HTTPException, OSError) as error:
        _fail(endpoint.host, f"broke off ({type(error).__name__})", error)


def _refusal_in(error: urllib.error.HTTPError) -> str:
    """Return what a refusal says, as far as it comes."""
    try:
        with error:
            return bytes(error.read1(4096)).decode("utf-8", "replace")
    except (http.client.HTTPException, OSError):  # it breaks off, or does not come
        return ""


def _quoted(said: str, endpoint: Endpoint) -> str:
    """Return a stranger's words as they may be shown: short, on one line, without the key."""
    return _shown(_without_key(said, endpoint))


def _shown(said: str) -> str:
    """Return the first words of a text on one line; nothing in it can steer a terminal."""
    line = " ".join(said.split())
    return "".join(one if one.isprintable() else "\N{REPLACEMENT CHARACTER}" for one in line)[
        :_SAID_CHARACTERS
    ]


def _without_key(said: str, endpoint: Endpoint) -> str:
    """Return a text that does not hold the key, which some endpoints repeat."""
    return said.replace(endpoint.key, "(the key)") if endpoint.key else said


def _read(answer: Any, deadline: float, endpoint: Endpoint) -> bytes:
    """Read an answer in pieces, so that one that drips does not last for ever."""
    parts: list[bytes] = []
    while part := answer.read1(_READ_BYTES):
        parts.append(part)
        if time.monotonic() > deadline:
            _fail(endpoint.host, _late(endpoint), None)
        if sum(map(len, parts)) > _MOST_ANSWER_BYTES:
            _fail(endpoint.host, "sent more than 1 MiB, which is no answer", None)
    if answer.length:
        _fail(endpoint.host, "broke off in the middle of its answer", None)
    return b"".join(parts)


def _late(endpoint: Endpoint) -> str:
    return f"did not answer within {endpoint.timeout_s:g} seconds"


def _fail(host: str, what: str, error: Exception | None) -> NoReturn:
    raise ToolFailed(
        f"The assistant at {host} {what}.",
        hint="Look at assistant_url and the endpoint's own log, or type the texts yourself.",
        host=host,
    ) from error


# --- reading an answer ---------------------------------------------------------------------------


def _said_in(data: bytes, host: str) -> str:
    """Return the text in an endpoint's answer."""
    try:
        said = json.loads(data)["choices"][0]["message"]["content"]
    except (ValueError, KeyError, IndexError, TypeError, RecursionError) as error:
        _fail(host, "sent something that no OpenAI-compatible endpoint sends", error)
    if not isinstance(said, str):
        _fail(host, "answered without a text", None)
    return said


def read_suggestion(said: str, host: str = "the endpoint") -> Suggestion:
    """Read the texts of a DynVFX job out of an answer.

    Raises:
        ToolFailed: It is not the JSON that was asked for; names what is wrong.
    """
    found = _object_in(said, host)
    objects = found.get("source_objects")
    if not isinstance(objects, list) or not 1 <= len(objects) <= _MOST_OBJECTS:
        _refuse(host, f"source_objects is no list of 1 to {_MOST_OBJECTS} texts")
    names = tuple(_name_in(one, "source_objects", host) for one in objects)
    source = found.get("source_prompt", "")
    return Suggestion(
        _text_in(found.get("prompt"), "prompt", host, _MOST_PROMPT_CHARACTERS),
        source and _text_in(source, "source_prompt", host, _MOST_PROMPT_CHARACTERS),
        names,
        _text_in(found.get("target_object"), "target_object", host, _MOST_NAME_CHARACTERS),
    )


def read_caption(said: str, host: str = "the endpoint") -> str:
    """Read a caption out of an answer.

    Raises:
        ToolFailed: It is not the JSON that was asked for.
    """
    return _text_in(_object_in(said, host).get("caption"), "caption", host, _MOST_PROMPT_CHARACTERS)


def _object_in(said: str, host: str) -> Mapping[str, Any]:
    """Return the JSON object that an answer is; fences around it are taken off."""
    text = said.strip()
    fenced = _FENCE.match(text)
    try:
        found = json.loads(fenced[1] if fenced else text)
    except (ValueError, RecursionError) as error:
        raise _nonsense(host, f"it is not JSON but: {_shown(text) or 'nothing'}") from error
    if not isinstance(found, dict):
        _refuse(host, "it is JSON, but no object")
    return found


def _text_in(value: Any, name: str, host: str, most: int) -> str:
    """Return a text on one line."""
    if not isinstance(value, str) or not value.strip():
        _refuse(host, f"{name} is no text")
    text = " ".join(value.split())
    if len(text) > most or not text.isprintable():
        _refuse(host, f"{name} is longer than {most} characters or holds control characters")
    return text


def _name_in(value: Any, name: str, host: str) -> str:
    """Return one object's name; commas stand between them, so none may hold one."""
    return _text_in(value, name, host, _MOST_NAME_CHARACTERS).replace(",", " ")


def _refuse(host: str, what: str) -> NoReturn:
    raise _nonsense(host, what)


def _nonsense(host: str, what: str) -> ToolFailed:
    return ToolFailed(f"The answer of {host} cannot be used: {what}.", hint=_CURE, host=host)
