"""What `make demo-hosts` shows."""

import pytest

from tests.hosts import unavailable
from tests.three_hosts_demo import main

WHY_NOT = unavailable()


@pytest.mark.root
@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
def test_the_run_whose_host_died_has_the_weights_of_one_that_was_left_alone():
    assert main() == 0
