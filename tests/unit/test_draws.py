"""Random generators: one a purpose, independent of each other, resumable."""

import numpy as np
import pytest

from node.draws import Draws


def test_same_purpose_is_the_same_generator():
    draws = Draws(3, "n0")
    assert draws("clock") is draws("clock")


def test_draws_do_not_depend_on_the_order_of_asking():
    one, other = Draws(3, "n0"), Draws(3, "n0")
    first = one("clock").random(4)
    other("batches").random(100)
    assert np.array_equal(first, other("clock").random(4))


def test_seed_peer_and_purpose_all_matter():
    firsts = {
        Draws(seed, peer)(purpose).integers(2**63) for seed in (0, 1) for peer in ("n0", "n1") for purpose in ("a", "b")
    }
    assert len(firsts) == 8


def test_names_that_concatenate_alike_differ():
    assert Draws(0, "n1")("1x").integers(2**63) != Draws(0, "n11")("x").integers(2**63)


def test_restored_generator_goes_on_where_it_stood():
    draws = Draws(7, "n2")
    draws("clock").exponential(size=5)
    draws("clock").standard_normal(3)
    state = draws.state()
    expected = draws("clock").random(10)
    later = Draws(7, "n2")
    later.restore(state)
    assert np.array_equal(expected, later("clock").random(10))


def test_restore_reaches_generators_that_were_handed_out():
    draws = Draws(7, "n2")
    held, other = draws("clock"), draws("batches")
    state = {"clock": draws.state()["clock"]}
    expected, expected_other = held.random(3), other.random(3)
    draws.restore(state)
    assert np.array_equal(expected, held.random(3))
    assert np.array_equal(expected_other, other.random(3)), "one that the state doesn't name starts afresh"


@pytest.mark.parametrize("text", ["nonsense", "{}", "[]", '{"bit_generator": "MT19937"}', "null"])
def test_what_is_no_state_is_refused(text):
    with pytest.raises(ValueError):
        Draws(0, "n0").restore({"clock": text})
