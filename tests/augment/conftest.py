import pytest


@pytest.fixture(autouse=True)
def _quick_compilation(quick_compilation):
    """The programs are tiny: they take longer to compile than to run."""
