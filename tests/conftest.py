"""Shared by all tests: small thread counts, so that two workers on two cores do not fight."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
