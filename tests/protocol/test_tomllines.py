# SPDX-License-Identifier: Apache-2.0
"""TOML with lines: the same values as the standard library's reader, and the line of each."""

import math
import random

import pytest

from gencomp_protocol import tomllines


def known():
    """Return the reader to compare with, which the standard library has since Python 3.11."""
    return pytest.importorskip("tomllib")


def nested(entries):
    """Return entries as the maps that ``tomllib`` makes of them."""
    made = {}
    for entry in entries:
        inside = made
        for part in entry.key[:-1]:
            inside = inside.setdefault(part, {})
        if entry.value == {}:
            inside.setdefault(entry.key[-1], {})
        else:
            inside[entry.key[-1]] = entry.value
    return made


def ours(text):
    """Return what our reader makes of a text, nested."""
    return nested(tomllines.read(text))


def outcome(read, text):
    """Return what a reader makes of a text, spelt so that NaN is like NaN; None for an error."""
    try:
        return repr(read(text))
    except ValueError:
        return None


TEXTS = [
    "a=1\na.b=2",
    "a.b=1\na.c=2",
    "[a]\nb=1\n[a.c]\nd=2",
    "[a.b]\nc=1\n[a]\nd=1",
    "a={b=1,c.d=2}",
    "a={}",
    "[a]\n[a]\n",
    "a=1\na=2",
    "[a]\nb.c=1\n[a.b]\nd=1",
    "a.b=1\n[a]\nc=1",
    "a={b=1}\n[a.c]\n",
    "a={b=1}\na.c=2",
    "a={b={c=1}}\na.b.d=1",
    "[a.b]\nx=1\n[a]\nb.c=1",
    'a="x\\ty\\u00e9\\U0001F600"',
    'a="""\nfoo\\\n   \n  bar"""',
    'a=""""q"""""',
    "a='''x'y'''''",
    "a='''\nx\r\ny'''",
    'a=[1,2, # one\n"x",]',
    'a=[[1],["x"]]',
    "a=0x_1",
    "a=0xFF\nb=0o17\nc=0b101",
    "a=1_000",
    "a=1__0",
    "a=+1.5e3",
    "a=.5",
    "a=5.",
    "a=inf\nb=-nan\nc=-0\nd=-0.0",
    "a=01",
    "a=tru",
    'a = "x" b',
    "a",
    "a=",
    "=1",
    '"a b"=1',
    '""=1',
    'a."b.c"=1',
    "[ a . b ]\nc=1",
    "[a]b=1",
    "[a",
    'a="\x01"',
    "# \x01",
    "a=1\r\nb=2",
    "a=1\rb=2",
    "a=[1,,2]",
    "a=[1",
    "a={b=1,}",
    "a={b=1\n}",
    "[a.b.c]\n[a]\nb.d=1",
    "a=[]\n[a.b]",
    'a="\\q"',
    'a="\\uD800"',
    'a="x',
    "a='x\ty'",
    "a=1E+0_1",
    "a=true\nb=false",
    "[a]\nb={}\n[a.b]",
    "a={x={y=1}, x.z=2}",
    "a.b.c=1\n[a.d]\nx=1",
    "\ufeffa=1",
    "  \t# nothing\n\n",
    "",
]


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_or_refused_as_the_standard_library_does(text):
    assert outcome(ours, text) == outcome(known().loads, text)


def written(dice):
    """Return a few lines of names and values, one in three of them with a slip of the pen."""
    names = ["a", "b", "a.b", "b.a", '"a b"', "a . 'b'"]
    plain = [
        "1",
        "-2.5e1",
        "0x1f",
        "true",
        "'x'",
        '"y\\n"',
        '"""\nz"""',
        "[1, [2.0],]",
        "{}",
        "nan",
    ]
    lines = []
    for _ in range(dice.randrange(1, 5)):
        if dice.random() < 0.4:
            lines.append(f"[{dice.choice(names)}]")
        else:
            value = dice.choice([*plain, f"{{{dice.choice(names)}={dice.choice(plain)}}}"])
            lines.append(f"{dice.choice(names)} = {value}{dice.choice(['', ' # why'])}")
    text = "\n".join(lines)
    if dice.random() < 0.3:
        at = dice.randrange(len(text))
        text = text[:at] + dice.choice(["", *"=.[]{},'\"\\\n#\r_0"]) + text[at + 1 :]
    return text


def test_any_text_is_read_or_refused_as_the_standard_library_does():
    dice, count, read = random.Random(49), 0, 0
    for text in (written(dice) for _ in range(4000)):
        try:
            expected = repr(known().loads(text))
        except ValueError:
            expected = None
        found = outcome(ours, text)
        if found is None and ("[[" in text or ("{" in text and "[" in text)):
            continue  # Perhaps an array of tables, which is refused on purpose.
        assert found == expected, text
        count, read = count + 1, read + (expected is not None)
    assert count > 3000
    assert read > 1000


def test_every_value_has_the_line_that_its_name_stands_in():
    text = '# site\na = 1\n\n[nuke]\nb = """\nx\n"""\nc.d = [\n1,\n]\n[knobs."*"]\n'
    found = [(entry.key, entry.line) for entry in tomllines.read(text)]
    assert found == [
        (("a",), 2),
        (("nuke", "b"), 5),
        (("nuke", "c", "d"), 8),
        (("knobs", "*"), 11),
    ]


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("a=1\nb=1979-05-27", 2, "date"),
        ("[[a]]", 1, "array of tables"),
        ("a=[{b=1}]", 1, "array of tables"),
        ("\n\na=x", 3, "a text has quotes"),
        ("a=1\n\na=2", 3, "'a' is there twice"),
        ("a = " + "[" * 40, 1, "nested"),
        ("a=" + "1" * 5000, 1, "is no value"),
    ],
)
def test_what_cannot_be_is_told_with_its_line(text, line, why):
    with pytest.raises(tomllines.NotToml, match=why) as refusal:
        tomllines.read(text)
    assert refusal.value.line == line


def test_numbers_are_numbers():
    found = nested(tomllines.read("a=1\nb=1.0\nc=nan"))
    assert [type(found[name]) for name in "abc"] == [int, float, float]
    assert math.isnan(found["c"])
