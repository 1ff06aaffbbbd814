"""What people are told of a name that is not there."""

from densessl.core.errors import unknown


def test_of_many_names_only_the_near_ones_are_listed():
    names = [f"moco_v2_{epochs}ep" for epochs in range(100, 200)] + ["setsim_200ep"]
    said = str(unknown("config", "setsim_20ep", names, "--config"))
    assert "Did you mean 'setsim_200ep'?" in said
    assert "101 in all" in said and len(said) < 400
