# SPDX-License-Identifier: Apache-2.0
"""The ``tracks`` knob of a Tracker4: a table of 31 columns to a track, as scripts hold it."""

from standin import expression
from standin.animation import Curve, is_number, spell
from standin.tclscript import quote, split

COLUMNS = 31
TRACK_X, TRACK_Y = 2, 3
# Columns of a track: how it is shown, its name; the first words are Nuke's own business.
_NAME_WORDS = (
    "enable name track_x track_y offset_x offset_y T R S error error_min error_max pattern_x "
    "pattern_y pattern_r pattern_t search_x search_y search_r search_t key_track key_search_x "
    "key_search_y key_search_r key_search_t key_track_x key_track_y key_track_r key_track_t "
    "key_centre_offset_x key_centre_offset_y"
)
_NAMES = _NAME_WORDS.split()


def spell_tracks(tracks):
    """Return the word of a ``tracks`` knob.

    Args:
        tracks: ``{name: {frame: (x, y)}}``, pixels, y upwards as in Nuke.
    """
    rows = []
    for name, points in tracks.items():
        frames = sorted(points)
        first = spell(frames[0])
        curves = [
            "{curve " + " ".join(f"x{spell(f)} {spell(points[f][axis])}" for f in frames) + "}"
            for axis in (0, 1)
        ]
        still = "{curve K x" + first
        rows.append(
            f"{{ {still} 1}} {quote(name)} {curves[0]} {curves[1]} {still} 0}} {still} 0}} 1 0 0 "
            f"{{curve x{first} 0}} 1 0 -32 -32 32 32 -22 -22 22 22 " + "{} " * 11 + "}"
        )
    columns = "\n".join(f"{{ 2 1 20 {name} {name} 1 }}" for name in _NAMES)
    body = "\n".join(rows)
    return f"{{ 1 {COLUMNS} {len(tracks)} }}\n{{ {columns}\n}}\n{{\n{body}\n}}"


def _cells(raw):
    parts = split(raw)
    return [split(row) for row in split(parts[2])] if len(parts) > 2 else []


def value_at(raw, frame, index):
    """Return the number in a column of the whole table at a frame."""
    rows = _cells(raw)
    row, column = divmod(index, COLUMNS)
    word = rows[row][column]
    if is_number(word):
        return float(word)
    if not word:
        return 0.0
    return expression.evaluate(word, _nothing, frame)


def _nothing(name):
    raise ValueError(f'Nothing is named "{name}"')


def key_list(raw):
    """Return the frames at which any track has a position."""
    found = set()
    for row in _cells(raw):
        for word in row[TRACK_X : TRACK_Y + 1]:
            words = word.split()
            if words[:1] == ["curve"]:
                found.update(key.x for key in Curve(words[1:]).keys)
    return sorted(found)
