# SPDX-License-Identifier: Apache-2.0
"""Who may look and who may change: host, token, origin."""

import pytest

from gencomp_server.web.access import check_change, check_host, check_token, new_token

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    "host", ["127.0.0.1:9477", "localhost:9477", "LOCALHOST:9477", "[::1]:9477"]
)
def test_loopback_by_any_of_its_names_is_let_in(host):
    assert check_host(host, 9477) is None


@pytest.mark.parametrize(
    "host",
    [
        *("", "127.0.0.1", "127.0.0.1:80", "evil.example:9477", "127.0.0.1.evil.example:9477"),
        *("127.0.0.2:9477", "0.0.0.0:9477", "127.0.0.1:9477@evil.example", "localhost:9477.evil"),
    ],
)
def test_another_host_is_turned_away_since_its_name_may_be_anybodys(host):
    assert check_host(host, 9477).status == 421


def test_the_token_opens():
    assert check_token({"Authorization": "Bearer abc"}, "abc") is None
    assert check_token({"Authorization": "bearer  abc"}, "abc") is None


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "abc"},
        {"Authorization": "Bearer"},
        {"Authorization": "Bearer abcd"},
        {"Authorization": "Basic abc"},
        {"Authorization": "Bearer äbc"},
        {"Cookie": "token=abc"},
    ],
)
def test_anything_but_the_token_in_its_header_does_not(headers):
    assert check_token(headers, "abc").status == 401


@pytest.mark.parametrize(
    "headers",
    [
        JSON,
        {**JSON, "Origin": "http://127.0.0.1:9477", "Sec-Fetch-Site": "same-origin"},
        {"Content-Type": "application/json; charset=utf-8", "Sec-Fetch-Site": "none"},
    ],
)
def test_a_page_of_ours_and_a_program_may_change_something(headers):
    assert check_change(headers, 9477) is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({**JSON, "Origin": "http://evil.example"}, 403),
        ({**JSON, "Origin": "null"}, 403),
        ({**JSON, "Origin": "http://127.0.0.1:9478"}, 403),
        ({**JSON, "Origin": "https://127.0.0.1:9477"}, 403),
        ({**JSON, "Sec-Fetch-Site": "cross-site"}, 403),
        ({**JSON, "Sec-Fetch-Site": "same-site"}, 403),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({}, 415),
    ],
)
def test_another_origin_or_a_form_may_not(headers, status):
    assert check_change(headers, 9477).status == status


def test_no_two_tokens_are_the_same_or_short():
    made = {new_token() for _ in range(50)}
    assert len(made) == 50
    assert min(map(len, made)) >= 43
