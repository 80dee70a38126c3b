# SPDX-License-Identifier: Apache-2.0
"""The second gate: what decoded pictures must be before a job counts as queued.

Pure rules over headers and figures: no file is opened and no pixel is read here, so the server's
front process may import it. The first gate, over the request alone, is ``contract.check_request``.
"""

import hashlib
from collections.abc import Iterator, Mapping
from fractions import Fraction

from gencomp_protocol.errors import BadMatte, BadPicture, FormatMismatch, GencompError
from gencomp_protocol.frames import Format, spell_frames
from gencomp_protocol.layers import PLATE
from gencomp_protocol.request import InputHeader, Request
from gencomp_server.contract import PictureHeader, System, declared_inputs
from gencomp_server.engine.spool import Spool
from gencomp_server.exr.decode import IMAGE, Decoded, DecodeTask, picture_label

MATTE = "matte"
DATA = "data"
REST = "rest"
# Coverage a little over 1 or under 0 is what a resized or blurred matte has; more is another thing.
MATTE_SLACK = 0.01
# A matte that covers more of every frame may be the wrong way round.
ALMOST_ALL = 0.9
_RATES = ("framesPerSecond", "FramesPerSecond")
_MOST_RATE = 1e9


def input_kind(system: System, name: str) -> str:
    """Return what an input of a job is: ``rgb``, ``rgba``, ``matte`` or ``data``."""
    return next(spec.kind for spec in declared_inputs(system) if spec.matches(name))


def decode_task(
    spool: Spool, kind: str, entry: InputHeader, frame: int, digest: str, file_kind: str
) -> DecodeTask:
    """Return the task that decodes one picture of an input into the spool.

    Args:
        spool: Where the picture lies and its pixels will lie.
        kind: What is wanted of it: ``rgb``, ``rgba``, ``matte`` or ``data`` (:func:`input_kind`),
            or ``rest``, all that is not R, G and B.
        entry: The input's header.
        frame: Frame of the picture.
        digest: The picture.
        file_kind: ``exr``, or ``image`` for DPX, PNG, TIFF and JPEG.
    """
    return DecodeTask(
        source=spool.picture(digest),
        target=spool.decoded_stem(digest, variant(kind, entry, file_kind)),
        kind=file_kind,
        role=kind,
        channel=entry.channel,
        colourspace=entry.colourspace,
        name=entry.name,
        frame=frame,
        digest=digest,
    )


def variant(kind: str, entry: InputHeader, file_kind: str) -> str:
    """Return the name of one way to decode a picture: equal names give equal pixels."""
    if kind == REST:
        return f"{file_kind}-rest"
    if kind in (MATTE, DATA):
        channel = entry.channel or ""
        mark = hashlib.blake2b(channel.encode(), digest_size=8).hexdigest() if channel else "auto"
        return f"{file_kind}-{kind}-{mark}"
    converted = file_kind == IMAGE and entry.colourspace == "srgb"
    return f"{file_kind}-colour-srgb" if converted else f"{file_kind}-colour"


def check_picture(kind: str, entry: InputHeader, frame: int, decoded: Decoded) -> None:
    """Check one decoded picture by itself.

    Args:
        kind: What the input is: ``rgb``, ``rgba``, ``matte`` or ``data``.
        entry: The input's header.
        frame: Frame of the picture.
        decoded: The picture.

    Raises:
        BadMatte: A matte holds NaN or infinite samples.
        BadPicture: A picture has no R, G and B.
        FormatMismatch: It is not of the size that the request said.
    """
    label = picture_label(entry.name, frame)
    _check_size(entry.name, frame, decoded.header, entry.format, "the input")
    bad = _bad(decoded)
    if kind == MATTE and bad:
        raise BadMatte(
            f"{label} has {_samples(bad)} (NaN or infinite).",
            hint="A matte is coverage from 0 to 1; repair or render it again.",
            input=entry.name,
            frame=frame,
        )
    if kind not in (MATTE, DATA) and decoded.header.channels[:3] != ("R", "G", "B"):
        raise BadPicture(
            f"{label} has no R, G and B, but {', '.join(decoded.header.channels)}.",
            hint="Render it with the channels R, G and B.",
            input=entry.name,
            frame=frame,
        )


def check_input(
    kind: str,
    entry: InputHeader,
    pictures: Mapping[int, Decoded],
    reference: tuple[str, PictureHeader] | None = None,
) -> tuple[str, ...]:
    """Check all pictures of an input together, and against another input.

    Args:
        kind: What the input is: ``rgb``, ``rgba``, ``matte`` or ``data``.
        entry: The input's header.
        pictures: Its decoded pictures by frame.
        reference: Name and header of the picture that all inputs must agree with in size.

    Returns:
        Warnings for the artist: sentences.

    Raises:
        BadMatte: No picture of a matte covers anything.
        BadPicture: A picture of data has no finite sample.
        FormatMismatch: Two pictures differ in size.
    """
    first = min(pictures)
    whole = pictures[first].header
    name, header = reference or (f"{entry.name}' frame '{first}", whole)
    for frame, decoded in sorted(pictures.items()):
        own = Format(whole.display_window.width, whole.display_window.height)
        _check_size(entry.name, frame, decoded.header, own, f"its frame {first}")
        if reference is not None:
            wanted = Format(header.display_window.width, header.display_window.height)
            _check_size(entry.name, frame, decoded.header, wanted, f"'{name}'")
    if kind == MATTE:
        return _check_coverage(entry, pictures)
    if kind == DATA:
        _check_data(entry, pictures)
    return _not_finite(entry, pictures)


def check_ingest(
    system: System, request: Request, pictures: Mapping[str, Mapping[int, Decoded]]
) -> tuple[str, ...]:
    """Check everything a job was sent, once it is all decoded.

    Args:
        system: The system that will run.
        request: What was asked.
        pictures: Every decoded picture, by input and frame.

    Returns:
        Warnings for the artist: sentences.

    Raises:
        BadMatte, BadPicture, FormatMismatch: see :func:`check_picture` and :func:`check_input`.
    """
    warnings: list[str] = []
    free = {
        one for one in pictures for s in declared_inputs(system) if s.own_format and s.matches(one)
    }
    bound = [name for name in pictures if name not in free] or list(pictures)
    lead = PLATE if PLATE in pictures else bound[0]
    reference = (lead, pictures[lead][min(pictures[lead])].header)
    for entry in request.inputs:
        kind, own = input_kind(system, entry.name), pictures[entry.name]
        for frame, decoded in sorted(own.items()):
            check_picture(kind, entry, frame, decoded)
        alone = entry.name == lead or entry.name in free
        warnings.extend(check_input(kind, entry, own, None if alone else reference))
    return (*warnings, *_other_rates(lead, pictures))


def _other_rates(lead: str, pictures: Mapping[str, Mapping[int, Decoded]]) -> Iterator[str]:
    """Return a warning for each input whose files tell another frame rate than the lead's."""
    rates = {name: _rate(own[min(own)].header) for name, own in pictures.items()}
    wanted = rates[lead]
    for name, rate in rates.items():
        if rate is not None and wanted is not None and rate != wanted:
            yield (
                f"Input '{name}' says {float(rate):g} frames a second, '{lead}' "
                f"{float(wanted):g}; frames are taken by their numbers."
            )


def _rate(header: PictureHeader) -> Fraction | None:
    """Return the frame rate that a file tells, or None."""
    for name in _RATES:
        value = header.metadata.get(name)
        parts = value if isinstance(value, tuple) else (value, 1)
        if len(parts) == 2 and all(map(_may_be_rate, parts)):
            return (Fraction(parts[0]) / Fraction(parts[1])).limit_denominator(1001)
    return None


def _may_be_rate(value: object) -> bool:
    """Tell whether an attribute, which may be of any type, is a number that a rate is made of."""
    return isinstance(value, (int, float)) and 1.0 / _MOST_RATE < value < _MOST_RATE


def named_by_knob(
    system: System, request: Request, entry: InputHeader, frame: int, error: GencompError
) -> GencompError:
    """Return a refusal as the artist knows it: by the knob that named a channel, and its file.

    Args:
        system: The job's system.
        request: What was asked.
        entry: The input that was refused.
        frame: Frame of the picture.
        error: Why.

    Returns:
        ``error`` itself where no knob named the channel, or it is not of the channel.
    """
    spec = next(one for one in declared_inputs(system) if one.matches(entry.name))
    knob, channel = spec.channel_knob, entry.channel
    wanted = str(request.knobs.get(knob, "")).strip() if knob else ""
    if not channel or wanted != channel or f"no channel '{channel}'" not in error.message:
        return error
    return BadPicture(
        f"{picture_label(spec.files_of, frame)} has no channel '{channel}', which knob "
        f"'{knob}' names.",
        hint=error.hint,
        knob=knob,
        input=spec.files_of,
        frame=frame,
    )


def _not_finite(entry: InputHeader, pictures: Mapping[int, Decoded]) -> tuple[str, ...]:
    """Return one warning of all NaN and infinite samples of an input; none where all are good."""
    found = {frame: _bad(one) for frame, one in sorted(pictures.items()) if _bad(one)}
    if not found:
        return ()
    total = sum(found.values())
    where = picture_label(entry.name, min(found) if len(found) == 1 else None)
    frames = f" in frames {spell_frames(found)}" if len(found) > 1 else ""
    what = f"{where} has {_samples(total)} (NaN or infinite){frames}"
    them = "it is" if total == 1 else "they are"
    return (f"{what}; {them} left out of the computation.",)


def _bad(decoded: Decoded) -> int:
    return decoded.stats.nan + decoded.stats.inf


def _check_data(entry: InputHeader, pictures: Mapping[int, Decoded]) -> None:
    """Refuse data that says nothing; any finite value is taken, and none is clamped."""
    empty = [frame for frame, decoded in sorted(pictures.items()) if decoded.stats.minimum is None]
    if empty:
        raise BadPicture(
            f"{picture_label(entry.name, empty[0])} has no finite sample in "
            f"{pictures[empty[0]].header.channels[0]}.",
            hint="Name the channel that holds it, or render it again.",
            input=entry.name,
            frame=empty[0],
        )


def _check_coverage(entry: InputHeader, pictures: Mapping[int, Decoded]) -> tuple[str, ...]:
    peaks = {frame: decoded.stats.maximum or 0.0 for frame, decoded in pictures.items()}
    if max(peaks.values()) <= 0.0:
        where = f" on any of its {len(peaks)} frames" if len(peaks) > 1 else ""
        raise BadMatte(
            f"Input '{entry.name}' is empty: it covers nothing{where}.",
            hint="Check the roto, and that the channel named for it is the one that holds it.",
            input=entry.name,
            frame=min(peaks),
        )
    lows = {frame: decoded.stats.minimum or 0.0 for frame, decoded in pictures.items()}
    odd = [f for f in peaks if peaks[f] > 1.0 + MATTE_SLACK or lows[f] < -MATTE_SLACK]
    said = []
    if odd:
        said.append(
            f"Input '{entry.name}' leaves the range 0 to 1 at {spell_frames(odd)} (from "
            f"{min(lows.values()):g} to {max(peaks.values()):g}); it is clamped."
        )
    found = pictures[min(pictures)]
    if found.no_alpha:
        said.append(
            f"Input '{entry.name}' has no alpha; its channel {found.header.channels[0]} is taken "
            "as coverage."
        )
    shares = [_share(decoded) for decoded in pictures.values()]
    if min(lows.values()) < 1.0 and min(shares) >= ALMOST_ALL:
        said.append(
            f"Input '{entry.name}' covers {min(shares):.0%} of the picture or more on every frame; "
            "if it is the wrong way round, invert it."
        )
    if min(lows.values()) >= 1.0:
        said.append(
            f"Input '{entry.name}' covers the whole picture on every frame; if its coverage is "
            f"not in the channel {pictures[min(pictures)].header.channels[0]}, name the one that "
            "holds it."
        )
    return tuple(said)


def _share(decoded: Decoded) -> float:
    """Return how much of its frame a matte covers, however little. 0 to 1."""
    window = decoded.header.display_window
    return min(1.0, decoded.stats.nonzero / (window.width * window.height))


def _check_size(
    name: str, frame: int, header: PictureHeader, wanted: Format | None, other: str
) -> None:
    window = header.display_window
    if wanted is None or (window.width, window.height) == (wanted.width, wanted.height):
        return
    raise FormatMismatch(
        f"{picture_label(name, frame)} is {window.width}x{window.height}, but {other} is "
        f"{wanted.width}x{wanted.height}.",
        hint="Reformat one of them.",
        input=name,
        frame=frame,
    )


def _samples(count: int) -> str:
    return "1 bad sample" if count == 1 else f"{count} bad samples"
