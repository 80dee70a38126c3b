# SPDX-License-Identifier: Apache-2.0
"""Signs of life: told, not too often, and given by whatever computes for long."""

import pytest

from gencomp_server import pulse


@pytest.fixture
def felt(monkeypatch):
    now, told = [100.0], []
    monkeypatch.setattr(pulse.time, "monotonic", lambda: now[0])
    with pulse.felt_by(lambda: told.append(now[0])):
        yield now, told


def test_beats_are_told_at_most_once_a_second(felt):
    now, told = felt
    for moment in (100.0, 100.5, 101.0, 101.9, 103.0):
        now[0] = moment
        pulse.beat()
    assert told == [101.0, 103.0]


def test_without_a_listener_nothing_happens():
    told = []
    with pulse.felt_by(lambda: told.append(1)):
        pass
    pulse.beat()
    assert told == []


@pytest.mark.fault("F29")
def test_every_module_of_a_model_on_a_processor_is_a_sign_and_only_while_it_works(felt):
    torch = pytest.importorskip("torch")
    from gencomp_server.engine.residency import beating

    now, told = felt
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    ticks = iter(range(1, 100))
    for module in model:
        module.register_forward_pre_hook(lambda *_: now.__setitem__(0, 100.0 + 10 * next(ticks)))
    with beating("cpu"):
        model(torch.zeros(1, 2))
    assert told == [110.0, 120.0]
    model(torch.zeros(1, 2))
    with beating("cuda:0"):
        model(torch.zeros(1, 2))
    assert told == [110.0, 120.0]
