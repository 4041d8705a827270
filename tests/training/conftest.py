"""Trainings of tiny models."""

import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread():
    """Take one thread, as the processes beside this one do: tiny matrices only wait for the others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
