# SPDX-License-Identifier: Apache-2.0
"""What no message may say."""

import pytest

from gencomp_protocol import messages as m
from gencomp_protocol.errors import MalformedMessage
from gencomp_protocol.frames import FrameRange
from gencomp_protocol.request import Request

DIGEST = "a" * 64
ENTRY = m.PictureEntry(1, 10, DIGEST)
REQUEST = Request("copy", FrameRange(1, 1), ())


@pytest.mark.parametrize(
    ("make", "where"),
    [
        pytest.param(lambda: m.PictureEntry(1, 0, DIGEST), "picture.bytes", id="empty picture"),
        pytest.param(
            lambda: m.PictureEntry(1, 4 * 1024**3 + 1, DIGEST), "picture.bytes", id="too large"
        ),
        pytest.param(lambda: m.PictureEntry(1, 1, "A" * 64), "picture.digest", id="capitals"),
        pytest.param(lambda: m.PictureEntry(1, 1, "../" + "a" * 61), "picture.digest", id="a path"),
        pytest.param(lambda: m.PictureEntry(1, 1, DIGEST + "\n"), "picture.digest", id="line end"),
        pytest.param(lambda: m.InputPictures("plate", (ENTRY,), "video"), "inputs.kind", id="kind"),
        pytest.param(
            lambda: m.InputPictures("plate", (ENTRY, ENTRY)), "inputs.pictures", id="frame twice"
        ),
        pytest.param(lambda: m.Submit(1, "", REQUEST, ()), "submit.key", id="no key"),
        pytest.param(lambda: m.Submit(1, "a/b", REQUEST, ()), "submit.key", id="key with a slash"),
        pytest.param(
            lambda: m.Submit(1, "k", REQUEST, (m.InputPictures("p", ()), m.InputPictures("p", ()))),
            "submit.inputs",
            id="input twice",
        ),
        pytest.param(
            lambda: m.Hello(1, (1, 2), "s", account="a\nb"), "hello.account", id="account"
        ),
        pytest.param(
            lambda: m.Submit(1, "k", REQUEST, (), show="x" * 129), "submit.show", id="long show"
        ),
        pytest.param(
            lambda: m.Submit(1, "k", REQUEST, (), shot="\x1b[2J"), "submit.shot", id="shot"
        ),
        pytest.param(
            lambda: m.Submit(1, "k", REQUEST, (), priority=101), "submit.priority", id="priority"
        ),
        pytest.param(
            lambda: m.Chunk("j", "input", "plate", 1, 0, b"0" * (8 * 1024 * 1024 + 1)),
            "chunk.body",
            id="chunk too long",
        ),
        pytest.param(lambda: m.Chunk("j", "input", "p", 1, -1, b"0"), "chunk.offset", id="offset"),
        pytest.param(lambda: m.LayerEvent("j", "a", 1, 0, DIGEST), "layer.bytes", id="layer size"),
        pytest.param(lambda: m.LayerEvent("j", "a", 1, 1, "x"), "layer.digest", id="layer digest"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_its_field(make, where):
    with pytest.raises(MalformedMessage) as refusal:
        make()
    assert refusal.value.details["field"] == where


def test_a_hello_does_not_show_its_secret():
    assert "sesame" not in repr(m.Hello(1, (1, 0), "sesame"))


def test_every_message_has_a_name_of_its_own():
    names = [cls.TYPE for cls in m.Message.__subclasses__()]
    assert len(set(names)) == len(names) >= 27
