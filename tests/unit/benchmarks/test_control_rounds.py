"""Which round of the control process counts."""

from __future__ import annotations

import pytest

from benchmarks.bench_control import middle_of


@pytest.mark.parametrize(("sums", "counts"), [((3.0, 1.0, 2.0), 2.0), ((4.0, 1.0), 4.0), ((5.0,), 5.0)])
def test_the_round_of_the_median_counts_with_its_own_stages(sums: tuple[float, ...], counts: float) -> None:
    rounds = [{"fold": one / 2, "judge": one / 2, "all": one} for one in sums]
    assert middle_of(rounds) == {"fold": counts / 2, "judge": counts / 2, "all": counts}
