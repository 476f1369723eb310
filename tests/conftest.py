"""Shared by all tests: small thread counts, so that two workers on two cores do not fight."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)


@pytest.fixture
def golden_transfer() -> Path:
    """Reference values of transfer methods, computed by other implementations."""
    return Path(__file__).parent / "golden" / "transfer"
