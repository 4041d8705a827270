"""The search against functions whose least value is known."""

import pytest

from hfasr.inference.tune import least

GRID = {"alpha": (0.5, 1.5, 2.5, 3.5), "beta": (-2.0, 0.0, 2.0)}


def _best(tried: list[dict]) -> dict:
    return min(tried, key=lambda found: found["rate"])


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 0.0), (1.3, -0.9), (2.9, 1.1), (4.6, 5.2), (0.1, -4.0)])
def test_finds_the_least_to_a_quarter_of_the_grid(alpha, beta):
    tried = least(lambda numbers: (numbers["alpha"] - alpha) ** 2 + (numbers["beta"] - beta) ** 2, GRID)
    best = _best(tried)
    assert abs(best["alpha"] - alpha) <= 0.25  # half of the last step beside a bound, a quarter of the grid's else
    assert abs(best["beta"] - beta) <= 0.5
    assert len({(found["alpha"], found["beta"]) for found in tried}) == len(tried) < 40
    assert min(found["alpha"] for found in tried) >= 0.25  # never 0


def test_equal_rates_keep_the_first_and_end():
    tried = least(lambda numbers: 1.0, GRID)
    assert _best(tried) == {"rate": 1.0, "alpha": 0.5, "beta": -2.0}


def test_the_least_of_the_grid_is_never_lost():
    asked = []

    def jagged(numbers):
        asked.append(numbers)
        return hash((numbers["alpha"], numbers["beta"])) % 97

    tried = least(jagged, GRID)
    assert len(asked) == len(tried)
    assert _best(tried)["rate"] == min(found["rate"] for found in tried)
    with pytest.raises(ValueError, match="grid of beta has 1 values"):
        least(jagged, {"alpha": (0, 1), "beta": (1,)})
