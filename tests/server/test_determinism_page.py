# SPDX-License-Identifier: Apache-2.0
"""The page on equal bits says what the tests for a GPU demand, no more and no less."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.fault("F41")
def test_the_tolerances_on_the_page_are_those_of_the_tests():
    page = (ROOT / "docs" / "td" / "determinism.md").read_text(encoding="utf-8")
    code = (ROOT / "tests" / "gpu" / "test_backbone_gpu.py").read_text(encoding="utf-8")
    told = {int(one) for one in re.findall(r"at least (\d+) dB", page)}
    named = re.findall(r"^[A-Z_]+_DB = (\d+)\.0", code, re.M)
    demanded = {int(one) for one in [*named, *re.findall(r"\) > (\d+)\.0$", code, re.M)]}
    assert told == demanded == {15, 25, 30, 40}
    equal = len(re.findall(r"^\|.*\| equal bits", page, re.M))
    assert equal == len(re.findall(r"assert torch\.equal\(run|assert torch\.equal.*0\]\)", code))


@pytest.mark.fault("F41")
def test_every_test_that_the_page_names_is_there_and_proves_the_row():
    page = (ROOT / "docs" / "td" / "determinism.md").read_text(encoding="utf-8")
    for name in set(re.findall(r"`(test_\w+\.py)`", page)):
        (found,) = (ROOT / "tests").rglob(name)
        assert '@pytest.mark.fault("F41")' in found.read_text(encoding="utf-8"), name
