from __future__ import annotations

import pytest

from tests.toy import SIGN, VALUE, make_development, make_setting
from transfuse.base_models import Setting


@pytest.fixture
def setting() -> Setting:
    return make_setting(make_development(SIGN))


@pytest.fixture
def multi_task() -> Setting:
    return make_setting(make_development(SIGN, VALUE))


@pytest.fixture
def transfer() -> Setting:
    return make_setting(make_development(SIGN, source=make_development(SIGN)))
