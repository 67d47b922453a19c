"""The symbol table and the signatures of the objectives name the same things."""

import inspect

import pytest

from mmrlhf_core.objectives import group, preference, reward
from mmrlhf_core.objectives.symbols import SYMBOLS


def public(module):
    return [f for name, f in inspect.getmembers(module, inspect.isfunction) if f.__module__ == module.__name__]


def parameters():
    functions = [f for module in (preference, reward, group) for f in public(module) if f.__name__[0] != "_"]
    return {name for f in functions for name in inspect.signature(f).parameters}


def test_every_argument_is_in_the_table_and_nothing_else():
    assert parameters() == set(SYMBOLS)


@pytest.mark.parametrize("module", [preference, reward, group])
def test_every_public_objective_says_its_shapes(module):
    for f in public(module):
        assert "[" in (f.__doc__ or ""), f.__name__
