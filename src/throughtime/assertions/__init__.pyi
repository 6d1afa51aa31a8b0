"""The assertions: type checkers read them here, and `__init__.py` loads each when it is first used."""

from .leak import assert_no_leak as assert_no_leak
from .verdict import assert_finite as assert_finite
from .verdict import assert_reaches as assert_reaches
from .verdict import assert_uses as assert_uses
