# SPDX-License-Identifier: Apache-2.0
"""Whose a job is, as the machine knows it."""

import getpass
import socket

from gencomp_protocol import whose
from gencomp_protocol.messages import Hello


def test_an_account_is_user_and_host():
    assert whose.account_here() == f"{getpass.getuser()}@{socket.gethostname()}"


def test_a_user_without_a_name_has_an_account_too(monkeypatch):
    def nobody():
        raise KeyError("uid not found")

    monkeypatch.setattr(whose.getpass, "getuser", nobody)
    assert "@" in whose.account_here()


def test_names_that_the_wire_does_not_take_are_made_such_that_it_does(monkeypatch):
    monkeypatch.setattr(whose.getpass, "getuser", lambda: "a\nb" + "x" * 200)
    account = whose.account_here()
    assert Hello(1, (1, 2), "s", account=account).account == "ab" + "x" * 126


def test_show_and_shot_are_those_of_the_environment():
    assert whose.show_and_shot({"GENCOMP_SHOW": "hero", "GENCOMP_SHOT": "010"}) == ("hero", "010")
    assert whose.show_and_shot({}) == ("", "")
