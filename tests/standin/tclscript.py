# SPDX-License-Identifier: Apache-2.0
"""Nuke scripts as real Tcl: reading commands, and writing words so that Tcl reads them back.

A script is code. It runs in a safe child interpreter from which every command is hidden; there are
a few of Nuke's own, and any other word is the class of a node, unless it is a command of Tcl, which
is refused. After a class comes a body of knobs, nothing, or names and values as words. Commands,
seconds, characters, brackets inside brackets and the length of variables are limited.
"""

import codecs
import collections
import functools
import itertools
import re
import threading
import time
import tkinter

MOST_COMMANDS = 400_000
MOST_SECONDS = 60
MOST_CHARACTERS = 64_000_000
MOST_OF_A_VARIABLE = 200
MOST_OF_A_CLASS = 1000
DEEPEST_BRACKETS = 1000
_PLAIN = re.compile(r"[A-Za-z0-9_./%:@+,=<>!?*^~|&()'-]+\Z")
_CLASS = re.compile(r"[^\s\"\[\]{}$;\\:#]+\Z")
_BARE_CLASS = re.compile(r"(?!\d+\Z)\w[\w.]*\Z")
_NUMBER = re.compile(r"[0-9]{1,9}\Z")  # str.isdigit() would take a superscript for one, too.
_OPTIONS = {"l": 1, "t": 1, "T": 1, "M": 1, "R": 2, "n": 1}
_BACKSLASHED = re.compile(r"\\.", re.DOTALL)
_ARRAY = re.compile(r"\$[\w:]*\(")
_UNSPEAKABLE = re.compile("[\0-\x08\x0b-\x1f\ud800-\udfff]")
_NESTING = re.compile(r"[\[\]]")
_BRACE = re.compile("[{}]")
_TABLE = re.compile(r"\s*[{.\d-][^\\\[\0-\x08\x0b-\x1f\ud800-\udfff]*\Z")
# Commands of Tcl and Tk that not every build has, or that only a library loads.
_REFUSED_WORDS = (
    "auto_execok auto_import auto_load auto_mkindex auto_qualify auto_reset bell bgerror bind "
    "clipboard console destroy dde event exec exit fconfigure focus grab history http image "
    "load memory option package parray pkg_mkIndex python python_exec registry resource selection "
    "send shell socket source system tcl_findLibrary tclLog tk tkwait toplevel unload vwait winfo "
    "wm"
)
_REFUSED = frozenset(_REFUSED_WORDS.split())
# Commands of Nuke's that do something, or answer: no node has such a class.
_ACTIONS = (
    "animation animations autoplace clone_selected connect_viewer declone delete display execute "
    "exists expression in knob knob_defaults knobs message nodes numvalue plugin_addpath "
    "plugin_find roll safe_mode script_clear script_open script_save setkey show_dag show_info "
    "value values"
)
_REFUSED = _REFUSED.union(_ACTIONS.split())
_STACK = ("pop", "dup", "exch", "index")
# Commands of Nuke's that say something about the script and make no node: kept and written again.
NOTES = (
    "version", "add_layer", "add_format", "add_view", "define_window_layout",
    "define_window_layout_xml", "knob_default",
)  # fmt: skip
_HERE, _COUNT = threading.local(), itertools.count()  # Tcl stays in the thread that made it.


class ScriptError(Exception):
    """A script that cannot be read, or that tries what a script must not."""


def decode(data):
    """Return a script's text: UTF-8; bytes that are none are read as Windows' western ones.

    Args:
        data: The bytes of the file.
    """
    text = data.decode("utf-8-sig", "standin_western")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _western(error):
    wrong = error.object[error.start : error.end]
    return "".join(_WESTERN.get(byte, chr(byte)) for byte in wrong), error.end


_WESTERN = {code: bytes([code]).decode("cp1252", "ignore") or chr(code) for code in range(128, 256)}
codecs.register_error("standin_western", _western)


def split(text):
    """Split a Tcl list into its words."""
    return list(_split(text))


@functools.lru_cache(maxsize=5000)
def _split(text):
    try:
        return _PARSER.splitlist(text)
    except tkinter.TclError as error:
        raise ScriptError(f"not a Tcl list: {error}") from None


def quote(word):
    """Spell a word so that it survives inside a braced body."""
    if word and _PLAIN.match(word):
        return word
    if _can_be_braced(word):
        return "{" + word + "}"
    found = word.replace("\\", "\\\\")
    for letter in '"[]{}$':
        found = found.replace(letter, "\\" + letter)
    found = found.replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    return '"' + _UNSPEAKABLE.sub(lambda match: f"\\u{ord(match.group()):04x}", found) + '"'


def _can_be_braced(word):
    """Tell whether braces round a word give it back, and say it as Nuke says curves and tables."""
    if "{" not in word or not _TABLE.match(word):
        return False
    depth = 0
    for found in _BRACE.finditer(word):
        depth += 1 if found.group() == "{" else -1
        if depth < 0:
            return False
    return depth == 0


# What Nuke calls a node in a file; a part that was cut out by hand may push what stayed behind.
_LEFT_BEHIND = re.compile(r"^[ \t]*push \$([NC][0-9a-f]{6,16})\s*$", re.MULTILINE)
_PARSER = tkinter.Tcl()


class Reader:
    """Runs a script against a builder: an object with a method per command of ours.

    The builder has ``node(cls, pairs)``, ``clone(words, pairs)``, ``push(*values)``,
    ``stack(depth)``, ``arrange(command, number)`` for what else is done to the stack,
    ``end_group()``, and ``note(words)`` for commands that make no node.
    """

    def __init__(self, builder):
        self._builder, self._failure = builder, None
        self._tcl, self._kid, self._refused = None, "", _REFUSED

    def run(self, text):
        """Run a whole script.

        Raises:
            ScriptError: It is not Tcl, names a command that is refused, or never ends.
        """
        _check_size(text)
        tcl, self._refused = _master()
        self._tcl, self._kid = tcl, f"script{next(_COUNT)}"
        kid = self._kid
        tcl.eval(f"interp create -safe {kid}")
        tcl.eval(f"foreach one [{kid} eval {{info commands}}] {{interp hide {kid} $one}}")
        hidden = f"interp invokehidden {kid} namespace"  # ::oo::class, ::tcl::string::repeat, …
        tcl.eval(f"{hidden} delete {{*}}[{hidden} children ::]")
        commands = {
            "unknown": self._unknown,
            "set": self._set,
            "push": lambda *words: self._builder.push(*words or ("0",)),
            **{name: functools.partial(self._arrange, name) for name in _STACK},
            "stack": lambda *words: self._builder.stack(_depth("stack", words)),
            "end_group": lambda *words: self._builder.end_group(),
            "clone": self._clone,
            **{name: functools.partial(self._note, name) for name in NOTES},
        }
        for name, action in commands.items():
            tcl.createcommand(f"{kid}_{name}", self._kept_error(action))
            tcl.call("interp", "alias", kid, name, "", f"{kid}_{name}")
        for name in ("cut_paste_input", *_LEFT_BEHIND.findall(text)):
            tcl.call("interp", "invokehidden", kid, "set", name, "0")
        tcl.call("interp", "limit", kid, "commands", "-value", MOST_COMMANDS)
        tcl.call("interp", "limit", kid, "time", "-seconds", int(time.time()) + MOST_SECONDS)
        try:
            tcl.call("interp", "eval", kid, text)
        except tkinter.TclError as error:
            raise (self._failure or ScriptError(str(error) or "cannot be read")) from None
        finally:
            tcl.call("interp", "delete", kid)
            for name in commands:
                tcl.tk.deletecommand(f"{kid}_{name}")

    def _kept_error(self, action):
        """Keep a Python error: Tcl would only pass on an empty message."""

        def called(*words):
            try:
                return str(action(*words) or "")
            except ScriptError as error:
                self._failure = self._failure or error
                raise
            except tkinter.TclError as error:
                self._failure = self._failure or ScriptError(str(error))
                raise
            except Exception as error:
                self._failure = self._failure or ScriptError(f"{type(error).__name__}: {error}")
                raise

        return called

    def _set(self, *words):
        """Set a variable; a long one is refused: doubled thirty times it fills a machine."""
        if len(words) not in (1, 2) or "(" in words[0] or "::" in words[0]:
            raise ScriptError(f"'set {' '.join(words)[:40]}' is not understood")
        if len(words) == 2 and len(words[1]) > MOST_OF_A_VARIABLE:
            raise ScriptError(f"the variable {words[0]} is longer than {MOST_OF_A_VARIABLE}")
        return self._tcl.call("interp", "invokehidden", self._kid, "set", *words)

    def _unknown(self, *words):
        name = words[0] if words else ""
        if name.lstrip(":") in self._refused or not _CLASS.match(name):
            raise ScriptError(f"the command '{name[:40]}' is refused")
        if len(name) > MOST_OF_A_CLASS:
            raise ScriptError(f"the class '{name[:40]}…' is longer than {MOST_OF_A_CLASS}")
        if len(words) == 2:
            return self._builder.node(name, pairs(name, words[1]))
        if len(words) == 1 and not any(map(str.isalnum, name)):
            return ""  # A stray mark, which hands leave behind the last line.
        if not _BARE_CLASS.match(name):
            raise ScriptError(f"the command '{name}' is refused")
        if not len(words) % 2:
            raise ScriptError(f"{name} needs one body in braces, not {len(words) - 1} words")
        return self._builder.node(name, list(zip(words[1::2], words[2::2])))

    def _arrange(self, name, *words):
        usual = "0" if name == "index" else "1"
        return self._builder.arrange(name, _depth(name, words or (usual,)))

    def _note(self, name, *words):
        return self._builder.note((name, *words))

    def _clone(self, *words):
        if not words:
            raise ScriptError("clone needs the node to clone")
        if len(words) == 1:
            return self._builder.clone(words, [])
        return self._builder.clone(words[:-1], pairs("clone", words[-1]))


def _master():
    """Return this thread's Tcl, and the names that no class of a node may have."""
    if not hasattr(_HERE, "tcl"):
        _HERE.tcl = tkinter.Tcl()
        own = _HERE.tcl.splitlist(_HERE.tcl.eval("info commands"))
        _HERE.refused = _REFUSED | set(own)
    return _HERE.tcl, _HERE.refused


def is_number(word):
    """Tell whether a word is a count that a script may hold: up to nine digits."""
    return _NUMBER.match(word) is not None


def _depth(command, words):
    if len(words) != 1 or not is_number(words[0]):
        raise ScriptError(f"'{command} {' '.join(words)[:40]}' is not understood")
    return int(words[0])


def _check_size(text):
    """Refuse what could fill the memory, or the stack of Tcl's own parser.

    Raises:
        ScriptError: The script is too long or too deep.
    """
    if len(text) > MOST_CHARACTERS:
        raise ScriptError(f"longer than {MOST_CHARACTERS} characters")
    if "\0" in text:
        raise ScriptError("holds a zero byte: no text")
    bare = _BACKSLASHED.sub("", text)
    depth = 0
    for found in _NESTING.finditer(bare):
        depth = depth + 1 if found.group() == "[" else max(depth - 1, 0)
        if depth > DEEPEST_BRACKETS:
            raise ScriptError(f"more than {DEEPEST_BRACKETS} brackets inside each other")
    if len(_ARRAY.findall(bare)) > DEEPEST_BRACKETS:
        raise ScriptError(f"more than {DEEPEST_BRACKETS} variables with an index")


def pairs(cls, body):
    """Split a node's body into knob names and words."""
    words = split(body)
    if len(words) % 2:
        raise ScriptError(f"the body of {cls} has a knob without a value, near '{words[-1]}'")
    return list(zip(words[::2], words[1::2]))


@functools.lru_cache(maxsize=5000)
def _parsed(spec, strict):
    """Return code, name, and the parts of an ``addUserKnob`` line."""
    words = split(spec)
    if len(words) == 1:  # {20} alone stands for the tab called User
        words.append("User")
    if len(words) < 2 or not is_number(words[0]):
        raise ScriptError(f"addUserKnob {{{spec[:40]}}} has no number and name")
    parts, rest = [], collections.deque(words[2:])
    if not strict and rest and rest[0][:1].isalpha() and rest[0] not in _OPTIONS:
        parts.append(("l", rest.popleft()))  # Nuke 4 says the label without its letter.
    while rest:
        word = rest.popleft()
        if word[:1] in ("+", "-") and word[1:2].isalpha():
            parts.append(("", word))
        elif word in _OPTIONS and len(rest) >= _OPTIONS[word]:
            taken = [rest.popleft() for _ in range(_OPTIONS[word])]
            parts.append((word, taken[0] if len(taken) == 1 else tuple(taken)))
        elif strict:
            raise ScriptError(f"addUserKnob {words[1]}: what is '{word}'?")
        else:
            parts.append(("", word))
    return int(words[0]), words[1], tuple(parts)


class UserKnob:
    """One ``addUserKnob`` line: code, name, then options, flags and other words in their order.

    Args:
        spec: What stands between the braces.
        strict: Refuse words that are neither an option nor a flag; else they are kept.
    """

    def __init__(self, spec, *, strict=True):
        self.code, self.name, parts = _parsed(spec, strict)
        self._parts = list(parts)  # (key of an option or "", its word or words)

    @property
    def flags(self):
        """The flags, in their order."""
        return [word for key, word in self._parts if not key]

    @property
    def options(self):
        """The options by their letters."""
        return {key: value for key, value in self._parts if key}

    def option(self, key, default=""):
        """Return an option, or what stands for it."""
        return self.options.get(key, default)

    def set_option(self, key, value):
        """Set an option, where it stands or before the flags."""
        kept = [(k, value if k == key else v) for k, v in self._parts]
        if key not in self.options:
            place = next((i for i, (k, _) in enumerate(kept) if not k), len(kept))
            kept.insert(place, (key, value))
        self._parts = kept

    def set_flag(self, word, on):
        """Set or clear a flag."""
        self._parts = [part for part in self._parts if part != ("", word)]
        if on:
            self._parts.append(("", word))

    @property
    def ends(self):
        """Whether it ends or begins a group without holding anything."""
        return self.option("n") in ("-1", "-2", "-3")

    @property
    def is_saved(self):
        """Tell whether the value is written into scripts."""
        return ("", "+DO_NOT_WRITE") not in self._parts

    def spell(self, menu=None):
        """Write the line's inside again, with the menu as it is now."""
        parts = [str(self.code), quote(self.name)]
        for key, value in self._parts:
            if not key:
                parts.append(value if _PLAIN.match(value) else quote(value))
            elif key == "M":
                items = menu if menu else split(value)
                parts.append("M {" + " ".join(quote(item) for item in items) + "}")
            elif key == "R":
                parts.append("R " + " ".join(quote(word) for word in value))
            else:
                parts.append(f"{key} {quote(value)}")
        return " ".join(parts)
