"""Costs, capacities and budgets from CSV files."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from topology.limits import read_link_values, read_node_values
from topology.problem import Problem
from topology.records import PlanError

NODES = ["hub", "n1", "n2", "n10"]
ENDS = np.array([(0, 1), (2, 0), (0, 3), (1, 2)])
POSITIVE = st.floats(1e-6, 1e6)


@pytest.fixture
def written(tmp_path):
    """Writes a text, or bytes, and gives the path."""

    def write(content: str | bytes) -> Path:
        (tmp_path / "values.csv").write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path / "values.csv"

    return write


@pytest.mark.parametrize(
    "text",
    [
        "hub,n1,2\nn2,hub,0.5\nn1,n2,3e2\n",
        "n1,hub,2\nhub,n2,0.5\nn2,n1,300",
        "a,b,cost\nn1, hub, 2\n\n# dear:\nn2,n1,300 # very\nhub\t,n2 , .5\n",
        "# made by hand\nfrom,to,euros\r\nn1,hub,2\r\nhub,n2,0.5\r\nn2,n1,300\r\n",
        '"n1","hub","2"\n"hub", "n2","0.5"\nn2,n1,"300"',
        "\ufeffn1,hub,2\nhub,n2,0.5\nn2,n1,300\n",
    ],
)
def test_edges_by_either_end_and_in_any_order(written, text) -> None:
    values = read_link_values(written(text), NODES, ENDS, "cost", 1.0)
    assert values.dtype == np.float64
    np.testing.assert_array_equal(values, [2, 0.5, 1, 300])


def test_a_header_of_names_that_are_nodes(written) -> None:
    values = read_link_values(written("a,b,Cost\nb,a,7\n"), ["a", "b"], np.array([(0, 1)]), "cost", 1.0)
    np.testing.assert_array_equal(values, [7])


def test_nodes(written) -> None:
    values = read_node_values(written("name,budget\nn10,4\nhub,1.5\n"), NODES, "budget", math.inf)
    np.testing.assert_array_equal(values, [1.5, math.inf, math.inf, 4])


def test_a_problem_is_made_of_them(written) -> None:
    capacities = read_link_values(written("hub,n10,2\n"), NODES, ENDS, "capacity", math.inf)
    budgets = read_node_values(written("n2,3\n"), NODES, "budget", math.inf)
    rows, most = Problem.of(4, ENDS, capacities=capacities, budgets=budgets).limits
    np.testing.assert_array_equal(rows.toarray(), [[0, 0, 1, 0], [0, 1, 0, 1]])
    np.testing.assert_array_equal(most, [2, 3])


@given(data=st.data())
def test_numbers_come_back_to_the_last_digit(data, tmp_path_factory) -> None:
    chosen = data.draw(st.lists(st.integers(0, len(ENDS) - 1), unique=True, min_size=1))
    values = data.draw(st.lists(POSITIVE, min_size=len(chosen), max_size=len(chosen)))
    lines = []
    for k, value in zip(chosen, values, strict=True):
        a, b = data.draw(st.permutations([NODES[end] for end in ENDS[k]]))
        lines.append(f"{a},{b},{value!r}\n")
    path = tmp_path_factory.mktemp("csv") / "values.csv"
    path.write_text("".join(lines))
    expected = np.full(len(ENDS), 1.0)
    expected[chosen] = values
    np.testing.assert_array_equal(read_link_values(path, NODES, ENDS, "cost", 1.0), expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hub,n1,1\nhubb,n1,2\n", "line 2: unknown node 'hubb': did you mean 'hub'"),
        ("hub,n1,1\nn1,n10,2\n", "line 2: n1 and n10 are not joined in this graph"),
        ("n1,n1,2\n", "line 1: n1 and n1 are not joined"),
        ("hub,n1,1\n\nn1,hub,1\n", "line 3: n1 – hub is in line 1 already, keep one"),
        ("hub,n1,2\nhub,n2\n", "line 2: it is 'hub,n2', write a,b,cost with commas between"),
        ("hub,n1,2,3\n", "line 1: it is 'hub,n1,2,3', write a,b,cost"),
        ("hub;n1;2\n", "line 1: it is 'hub;n1;2', write a,b,cost"),
        ("hub,n1,much\n", "line 1: the cost is 'much', write a number from 1e-6 to 1e6"),
        ("a,b,cost\na,b,cost\nhub,n1,1\n", "line 2: unknown node 'a'"),
        ("hub,n1,\n", "line 1: the cost is ''"),
        ("hub,n1,0\n", "line 1: the cost is '0', write a number from 1e-6 to 1e6"),
        ("hub,n1,-1\n", "the cost is '-1'"),
        ("hub,n1,nan\n", "the cost is 'nan'"),
        ("hub,n1,inf\n", "the cost is 'inf'"),
        ("hub,n1,1e999\n", "the cost is '1e999'"),
        ('hub,"n1,2\n', "line 2: this is not CSV"),
        ('hub,"n1"x,2\n', "line 1: this is not CSV"),
        ("", "the cost file .* is empty"),
        ("a,b,cost\n", "has no cost in it: write a line a,b,cost"),
        ("# nothing\n", "has no cost in it"),
        (b"hub,n1,1\n\xe9,n1,2\n", "line 2 is not UTF-8"),
    ],
)
def test_wrong_lines(written, text, says) -> None:
    path = written(text)
    with pytest.raises(PlanError, match=says) as refusal:
        read_link_values(path, NODES, ENDS, "cost", 1.0)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("hub,2\nn11,2\n", "line 2: unknown node 'n11': did you mean 'n1'"),
        ("hub,2\nn1,3\nhub,2\n", "line 3: hub is in line 1 already"),
        ("hub,n1,2\n", "line 1: it is 'hub,n1,2', write name,budget"),
        ("hub,-2\n", "line 1: the budget is '-2', write a number from 1e-6 to 1e6"),
    ],
)
def test_wrong_lines_about_nodes(written, text, says) -> None:
    with pytest.raises(PlanError, match=says):
        read_node_values(written(text), NODES, "budget", math.inf)


def test_a_file_that_is_not_there(tmp_path) -> None:
    with pytest.raises(PlanError, match=r"the capacity file .*absent\.csv can't be read: No such file"):
        read_link_values(tmp_path / "absent.csv", NODES, ENDS, "capacity", math.inf)
