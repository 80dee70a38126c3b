# SPDX-License-Identifier: Apache-2.0
"""``docs/td/configuration.md`` names every setting that there is, and none that there is not."""

import importlib.util
import re
from pathlib import Path

import pytest

from gencomp_protocol.settings import CLIENT_DEFAULTS, NUKE_DEFAULTS, from_environ
from gencomp_server.config import load_config

ROOT = Path(__file__).resolve().parent.parent.parent
PAGE = ROOT / "docs" / "td" / "configuration.md"


@pytest.fixture(scope="module")
def tool():
    spec = importlib.util.spec_from_file_location("settings_page", ROOT / "tools/settings_page.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_are_as_the_code_says(tool):
    assert PAGE.read_text(encoding="utf-8") == tool.page(), "run tools/settings_page.py"


def test_every_key_has_a_row_and_no_row_is_without_a_key(tmp_path):
    rows = re.findall(r"^\| `([a-z_.]+)` \|", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    server = list(load_config(environ={"GENCOMP_HOME": str(tmp_path)}).sources)
    client = [f"client.{name}" for name in CLIENT_DEFAULTS]
    assert rows == [*server, *client, *NUKE_DEFAULTS]


def test_the_variables_of_the_client_are_those_that_are_read():
    rows = re.findall(r"^\| `client\.(\w+)` \| `(\w+)` \|", PAGE.read_text(), re.MULTILINE)
    for name, variable in rows:
        layer = from_environ([("client", name)], {variable: "x"})
        assert str(layer.values[("client", name)].origin) == variable
    assert len(rows) == len(CLIENT_DEFAULTS)


def test_the_example_of_a_file_is_one(tmp_path):
    text = PAGE.read_text(encoding="utf-8").partition("```toml\n")[2].partition("```")[0]
    (tmp_path / "gencomp.toml").write_text(text)
    loaded = load_config(environ={"GENCOMP_HOME": str(tmp_path)})
    assert loaded.config.quota_jobs == 20
    assert loaded.settled["allow_network"].lock is not None
