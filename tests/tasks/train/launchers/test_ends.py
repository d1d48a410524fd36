import signal

import pytest

from tasks.train.launchers.ends import End, decisive

KILL, ABORT = -signal.SIGKILL, -signal.SIGABRT


@pytest.mark.parametrize(
    ("ends", "host"),
    [
        pytest.param([(0, 0), (0, 5)], 0, id="all done"),
        pytest.param([(75, 0), (75, 5)], 0, id="all saved"),
        pytest.param([(0, 0), (75, 5)], 1, id="not all done: start again"),
        pytest.param([(75, 0), (KILL, 5)], 0, id="killed after all had saved"),
        pytest.param([(75, 0), (76, 0.5)], 0, id="at once: a neighbour that left early"),
        pytest.param([(75, 0), (KILL, 0.5)], 1, id="at once: not known to be after the save"),
        pytest.param([(76, 5), (77, 0)], 1, id="the first is the cause"),
        pytest.param([(76, 0), (77, 0.9)], 1, id="at once: a neighbour's end gives a host fault, never a data fault"),
        pytest.param([(76, 0), (77, 1.1)], 0, id="a second later it is the consequence"),
        pytest.param([(ABORT, 0), (1, 0.5)], 1, id="at once: an abort follows a fault in the program"),
        pytest.param([(1, 0), (KILL, 0.5)], 1, id="at once: no neighbour sends a kill"),
        pytest.param([(77, 0), (1, 0)], 0, id="what is understood is said first"),
        pytest.param([(1, 0), (KILL, 9)], 0, id="killed because the other was gone"),
    ],
)
def test_the_end_that_stands_for_the_group(ends, host):
    group = [End(number, code, at_s) for number, (code, at_s) in enumerate(ends)]
    assert decisive(group) == group[host]
    assert decisive(group[::-1]) == group[host], "whatever their order"
