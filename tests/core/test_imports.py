"""Behaviour of `adapterbench.core.imports`."""

import gc

from adapterbench.core.imports import fast_imports


def test_imports_are_not_searched_for_garbage_and_the_rest_is() -> None:
    with fast_imports():
        assert not gc.isenabled()
        with fast_imports():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()
