"""`${at:...}`: a value by horizon."""

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from engine.resolvers import register

TABLE = "{96: 256, 192: 384, 720: 512}"


def at(key: str) -> int:
    register()
    return OmegaConf.create({"x": f"${{at:{key},{TABLE}}}"}).x


@pytest.mark.parametrize(("horizon", "width"), [(96, 256), (192, 384), (720, 512)])
def test_a_listed_key_gives_its_entry(horizon, width):
    assert at(str(horizon)) == width


@pytest.mark.parametrize(("horizon", "width"), [(1, 256), (100, 256), (150, 384), (400, 384), (500, 512), (9999, 512)])
def test_any_other_number_gives_the_nearest_ones_entry(horizon, width):
    assert at(str(horizon)) == width


def test_a_table_may_have_an_entry_for_all_other_names():
    register()
    assert OmegaConf.create({"x": "${at:${y},{RacketSports: 10, default: 20}}", "y": "mine"}).x == 20


def test_a_key_that_is_no_number_is_told():
    with pytest.raises(OmegaConfBaseException, match=r"'far' is not in the table"):
        at("far")
