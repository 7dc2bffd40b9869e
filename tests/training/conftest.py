"""The plainest step, with which others are compared."""

import pytest
from steps import Setup, objective


@pytest.fixture(scope="session")
def plain_step():
    """Metrics and parameters of a step on one device, in the plainest arrangement."""
    setup = Setup(objective())
    return setup.take()[0], setup.params()
