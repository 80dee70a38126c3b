# SPDX-License-Identifier: Apache-2.0
"""A pass that fails, on the real sampler and tiny: only what it had not finished runs again."""

import numpy as np
import pytest

STEPS = 2
KNOBS = {"backbone": "tiny", "steps": STEPS, "guidance": 1.0, "model_size": "48x32"}


@pytest.mark.fault("F32")
@pytest.mark.fault("F41")
@pytest.mark.slow
def test_when_the_third_of_four_passes_fails_then_the_next_run_computes_only_what_is_missing(
    new_job_in, tmp_path, brief_tiny_of, monkeypatch
):
    from gencomp_server.systems import omnimatte

    broken, whole = (
        new_job_in(tmp_path / name, objects=2, frames=1, clean=False)[0]
        for name in ("broken", "whole")
    )
    third = np.zeros((96, 160, 1), np.float16)
    third[70:90, 4:20] = 1
    for job in (broken, whole):
        job.add("matte.c", 1001, third)
    model = broken.backbone = whole.backbone = brief_tiny_of(omnimatte.SYSTEM)
    expected = whole.run(**KNOBS)
    passes = [row.name for row in expected.ctx.rows].count("sample")
    assert (passes, expected.forwards) == (4, 4 * STEPS)

    real, until = model.predict, model.forwards + 2 * STEPS + 1  # In the third's second step.

    def predict(*given):
        if model.forwards >= until:
            raise ZeroDivisionError("the machine went down")
        return real(*given)

    before = model.forwards
    with monkeypatch.context() as patch:
        patch.setattr(model, "predict", predict)
        with pytest.raises(ZeroDivisionError):
            broken.run(**KNOBS)
    computed = model.forwards - before
    again = broken.run(**KNOBS)
    samples = [row.reused for row in again.ctx.rows if row.name == "sample"]
    assert samples == [True, True, False, False]
    assert computed + again.forwards == expected.forwards  # Not even the finished step.
    for place, picture in expected.pictures.items():
        assert picture.pixels.tobytes() == again.pictures[place].pixels.tobytes(), place
