"""One peer of an echo wave, message by message."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from algorithms.echo import AHEAD, Echo
from algorithms.protocol import Delivered, Limits, Message, Reason, Send, Timer, Undelivered
from algorithms.view import Standing

NODES = ["a", "b", "c", "d", "e"]
LIMITS = Limits(reply_first=4.0, retry_first=1.0, retry_max=8.0)


@pytest.fixture
def middle() -> Echo:
    """Peer ``c`` with the neighbours a, b and d."""
    return Echo("c", NODES, ["a", "b", "d"], LIMITS, np.random.default_rng(0))


def number(wave: int, root: str) -> int:
    """How the wave is numbered on the wire."""
    return wave * len(NODES) + NODES.index(root)


def wave(count: int, root: str, ends: bool = False) -> Message:
    return Message("wave", number(count, root), numbers={"ends": int(ends)})


def total(count: int, root: str, values: list[float], names: str, rest: list[float] | None = None) -> Message:
    vectors = {"sum": torch.tensor(values), "rest": torch.tensor(rest or [0.0] * len(values))}
    return Message("sum", number(count, root), vectors, view={name: Standing() for name in names}, whole=True)


def mean(values: list[float], names: str) -> Message:
    return Message("mean", 0, {"x": torch.tensor(values)}, view={name: Standing() for name in names}, whole=True)


def sent(effects: list, kind: str) -> dict[str, Message]:
    """What of a kind goes to whom."""
    return {e.to: e.message for e in effects if isinstance(e, Send) and e.message.kind == kind}


def waves(effects: list) -> dict[str, int]:
    return {to: message.number for to, message in sent(effects, "wave").items()}


def kinds(effects: list) -> list[str]:
    return [effect.message.kind for effect in effects if isinstance(effect, Send)]


# ----------------------------------------------------------------------------------------------- the waves


def test_the_first_wave_goes_on_to_all_but_where_it_came_from(middle):
    assert waves(middle.arrive("a", wave(1, "a"))) == dict.fromkeys("bd", number(1, "a"))
    assert middle.waves == 1


def test_a_higher_wave_begins_everything_anew(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", total(1, "a", [5.0], "b"))
    assert waves(middle.arrive("d", wave(1, "e"))) == dict.fromkeys("ab", number(1, "e"))  # as many, a later root
    middle.arrive("a", total(1, "e", [2.0], "a"))
    answer = sent(middle.arrive("b", wave(1, "e")), "sum")["d"]
    assert answer.vectors["sum"].item() == 3.0
    assert set(answer.view) == {"a", "c"}


def test_a_lower_wave_is_told_of_the_higher_one(middle):
    middle.arrive("a", wave(2, "a"))
    assert waves(middle.arrive("b", wave(1, "e"))) == {"b": number(2, "a")}


def test_a_late_lower_wave_of_the_parent_is_nothing(middle):
    middle.arrive("a", wave(2, "a"))
    assert middle.arrive("a", wave(1, "b")) == []


def test_who_has_answered_the_wave_is_not_asked_again(middle):
    middle.arrive("a", wave(2, "a"))
    middle.arrive("b", wave(2, "a"))
    assert middle.arrive("b", wave(1, "e")) == []
    assert middle.find("b") == []


def test_an_equal_wave_is_an_answer(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    assert middle.arrive("b", wave(1, "a")) == []
    assert list(sent(middle.arrive("d", wave(1, "a")), "sum")) == ["a"]


def test_an_equal_wave_of_the_parent_is_not_answered(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    assert middle.arrive("a", wave(1, "a")) == []
    middle.arrive("b", wave(1, "a"))
    assert kinds(middle.arrive("d", wave(1, "a"))) == ["sum"]
    assert middle.arrive("a", wave(1, "a")) == []


def test_a_wave_that_is_too_far_ahead_is_not_believed(middle):
    assert middle.arrive("a", wave(AHEAD + 1, "a")) == []
    assert not middle.under_way
    assert middle.arrive("a", Message("wave", AHEAD * len(NODES), numbers={"ends": 0})) != []


def test_it_leads_with_the_next_number(middle):
    middle.arrive("a", wave(3, "e"))
    assert waves(middle.lead()) == dict.fromkeys("abd", number(4, "c"))


def test_the_order_to_end_is_carried_on(middle):
    effects = middle.arrive("a", wave(1, "a", ends=True))
    assert middle.ends
    assert {message.numbers["ends"] for message in sent(effects, "wave").values()} == {1}


@pytest.mark.parametrize("count", [1, 2])
def test_the_order_to_end_begins_a_new_wave_where_the_one_under_way_lacks_it(middle, count):
    middle.arrive("a", wave(2, "a"))
    effects = middle.arrive("b", wave(count, "a", ends=True))
    assert waves(effects) == dict.fromkeys("abd", number(3, "c"))
    assert {message.numbers["ends"] for message in sent(effects, "wave").values()} == {1}
    assert middle.arrive("b", wave(1, "e", ends=True)) != []  # no news: only told of the higher one
    assert middle.waves == 2
    assert middle.lead(ends=True) == []


# ------------------------------------------------------------------------------------------------ the sums


def test_sums_add_up_with_what_rounding_left(middle):
    middle.freeze(torch.tensor([1.0, 2.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", total(1, "a", [1e8, -1e8], "b", rest=[0.5, 0.25]))
    answer = sent(middle.arrive("d", total(1, "a", [3.0, 4.0], "de", rest=[0.25, 0.0])), "sum")["a"]
    whole = answer.vectors["sum"].double() + answer.vectors["rest"].double()
    assert whole.tolist() == [1e8 + 4.75, -1e8 + 6.25]  # which no float32 can hold
    assert set(answer.view) == {"b", "c", "d", "e"}
    assert answer.whole


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_root_divides(middle, dtype):
    middle.freeze(torch.tensor([1.0], dtype=dtype))
    middle.lead()
    for name, value in zip("abd", (2.0, 4.0, 8.0), strict=True):
        message = total(1, "c", [value], name)
        message.vectors = {key: vector.to(dtype) for key, vector in message.vectors.items()}
        effects = middle.arrive(name, message)
    assert middle.mean.item() == 3.75
    assert middle.mean.dtype is dtype
    assert middle.members == ("a", "b", "c", "d")
    given = sent(effects, "mean")
    assert list(given) == ["a", "b", "d"]
    assert all(list(message.view) == ["a", "b", "c", "d"] and message.whole for message in given.values())


def test_in_float64_nothing_is_lost_on_the_way_up(middle):
    middle.freeze(torch.tensor([0.1], dtype=torch.float64))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", wave(1, "a"))
    answer = sent(middle.arrive("d", wave(1, "a")), "sum")["a"]
    assert (answer.vectors["sum"].item(), answer.vectors["rest"].item()) == (0.1, 0.0)


@pytest.mark.parametrize("kind", ["sum", "mean"])
def test_foreign_names_are_not_believed(middle, kind):
    middle.freeze(torch.tensor([1.0]))
    middle.lead()
    message = total(1, "c", [1.0], "az") if kind == "sum" else mean([1.0], "az")
    assert middle.arrive("a", message) == []
    assert middle.mean is None


@pytest.mark.parametrize("names", ["ab", "dc"])
def test_names_that_come_twice_begin_a_new_wave(middle, names):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", total(1, "a", [1.0], "ab"))
    assert waves(middle.arrive("d", total(1, "a", [1.0], names))) == dict.fromkeys("abd", number(2, "c"))


def test_sums_of_another_wave_and_sums_that_come_again_are_nothing(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(2, "a"))
    assert middle.arrive("b", total(1, "e", [9.0], "b")) == []
    assert middle.arrive("b", total(2, "a", [2.0], "b")) == []
    assert middle.arrive("b", total(2, "a", [2.0], "b")) == []
    answer = sent(middle.arrive("d", wave(2, "a")), "sum")["a"]
    assert answer.vectors["sum"].item() == 3.0


def test_nothing_is_answered_before_the_own_model_is_there(middle):
    middle.arrive("a", wave(1, "a"))
    assert middle.arrive("b", wave(1, "a")) + middle.arrive("d", wave(1, "a")) == []
    assert kinds(middle.freeze(torch.tensor([1.0]))) == ["sum"]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_model_that_is_not_finite_is_in_no_mean(middle, bad):
    middle.freeze(torch.tensor([bad, 1.0]))
    middle.lead()
    middle.arrive("a", wave(1, "c"))
    middle.arrive("b", total(1, "c", [2.0, 3.0], "b"))
    middle.arrive("d", total(1, "c", [4.0, 4.0], "de"))
    assert middle.members == ("b", "d", "e")
    assert torch.equal(middle.mean, torch.tensor([2.0, 7 / 3]))


def test_where_no_model_is_finite_the_mean_has_no_members(middle):
    middle.freeze(torch.tensor([float("nan")]))
    middle.lead()
    for name in "abd":
        middle.arrive(name, total(1, "c", [0.0], ""))
    assert middle.members == ()
    assert middle.mean.item() == 0.0  # or it would not get through to the others


# ------------------------------------------------------------------------------------------------ the mean


@pytest.fixture
def done(middle) -> Echo:
    """It has got the mean from its parent, with a child, d, and has told all."""
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", wave(1, "a"))
    middle.arrive("d", total(1, "a", [3.0], "de"))
    effects = middle.arrive("a", mean([2.0], "acde"))
    assert list(sent(effects, "mean")) == ["d"]
    assert list(sent(effects, "had")) == ["a", "b", "d"]
    assert [effect.delay for effect in effects if isinstance(effect, Timer)] == [LIMITS.reply_first]
    return middle


def deliver(peer: Echo, *pairs: str) -> None:
    for to, kind in (pair.split() for pair in pairs):
        (count,) = {message.number for (who, what), message in peer._out.items() if (who, what) == (to, kind)}
        peer.hear_of(Delivered(to, kind, count))


def test_a_mean_is_given_as_it_came(done):
    assert done.mean.item() == 2.0
    assert done.members == ("a", "c", "d", "e")
    message = sent(done.arrive("b", wave(1, "b")), "mean")["b"]
    assert message.vectors["x"].item() == 2.0
    assert set(message.view) == {"a", "c", "d", "e"}


@pytest.mark.parametrize("count", [0, 1, 2, 7])
def test_who_has_the_mean_answers_every_wave_with_it(done, count):
    assert kinds(done.arrive("b", wave(count, "e"))) == ["mean"]
    assert done.arrive("b", wave(count, "e")) == []  # it is on its way
    assert kinds(done.arrive("a", wave(count, "e"))) == ["mean"]  # which has had it and must have forgotten
    assert done.members == ("a", "c", "d", "e")


def test_it_is_settled_when_all_have_told_and_have_been_told(done):
    deliver(done, "a had", "b had", "d had", "d mean")
    done.arrive("b", Message("had"))
    assert not done.settled
    done.arrive("d", Message("had"))
    assert done.settled


def test_it_is_not_settled_before_its_own_word_has_arrived(done):
    done.arrive("b", Message("had"))
    done.arrive("d", Message("had"))
    deliver(done, "a had", "b had")
    assert not done.settled
    deliver(done, "d had")
    assert done.settled


def test_after_a_while_the_mean_goes_to_those_who_have_not_told(done):
    done.arrive("d", Message("had"))
    assert list(sent(done.ring("merge spread"), "mean")) == ["b"]


def test_who_is_lost_need_not_have_had_it(done):
    deliver(done, "a had", "d had")
    done.arrive("d", Message("had"))
    assert done.lose("b") == []
    assert done.settled


def test_who_comes_back_after_the_mean_is_given_it_again(done):
    done.lose("a")
    (timer,) = done.find("a")
    assert "a" in sent(done.ring(timer.name), "mean")


def test_who_is_given_it_a_second_time_says_so_again(done):
    assert kinds(done.arrive("b", mean([2.0], "acde"))) == ["had"]
    assert done.arrive("b", Message("had")) == []


# ---------------------------------------------------------------------------------------------- the losses


def test_a_lost_parent_begins_a_new_wave(middle):
    middle.arrive("a", wave(1, "a"))
    assert waves(middle.lose("a")) == dict.fromkeys("bd", number(2, "c"))


def test_a_lost_parent_begins_a_new_wave_even_when_it_has_the_sum(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", wave(1, "a"))
    middle.arrive("d", wave(1, "a"))
    assert waves(middle.lose("a")) == dict.fromkeys("bd", number(2, "c"))


@pytest.mark.parametrize("outcome", ["delivered", "timeout", "unknown"])
def test_a_lost_neighbour_that_may_have_the_wave_begins_a_new_one(middle, outcome):
    middle.arrive("a", wave(1, "a"))
    if outcome == "delivered":
        middle.hear_of(Delivered("b", "wave", number(1, "a")))
    if outcome == "timeout":
        middle.hear_of(Undelivered("b", "wave", number(1, "a"), Reason.TIMEOUT))
    assert waves(middle.lose("b")) == dict.fromkeys("ad", number(2, "c"))


def test_a_lost_neighbour_that_cannot_have_the_wave_is_done_without(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("d", wave(1, "a"))
    middle.hear_of(Undelivered("b", "wave", number(1, "a"), Reason.UNREACHABLE))
    assert list(sent(middle.lose("b"), "sum")) == ["a"]


@pytest.mark.parametrize("answer", ["wave", "sum"])
def test_a_lost_neighbour_that_has_answered_is_done_without(middle, answer):
    middle.arrive("a", wave(1, "a"))
    middle.arrive("b", wave(1, "a") if answer == "wave" else total(1, "a", [1.0], "b"))
    assert middle.lose("b") == []
    assert middle.waves == 1


def test_losses_before_any_wave_are_nothing_but_remembered(middle):
    assert middle.lose("b") == []
    assert list(waves(middle.arrive("a", wave(1, "a")))) == ["d"]


def test_a_late_message_of_the_dead_holds_nobody_up(middle):
    middle.lose("b")
    middle.arrive("b", wave(1, "b"))
    effects = middle.freeze(torch.tensor([1.0]))
    assert effects == []
    middle.arrive("a", wave(1, "b"))
    assert kinds(middle.arrive("d", wave(1, "b"))) == ["sum"]
    again = middle.hear_of(Undelivered("b", "sum", number(1, "b"), Reason.UNREACHABLE))
    assert waves(again) == dict.fromkeys("ad", number(2, "c"))


def test_who_comes_back_is_asked_once_more(middle):
    middle.arrive("a", wave(1, "a"))
    middle.lose("b")  # which begins the second wave
    assert waves(middle.find("b")) == {"b": number(2, "c")}
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(2, "c"))
    assert middle.arrive("d", wave(2, "c")) == []
    middle.arrive("b", total(2, "c", [3.0], "b"))
    assert middle.members == ("b", "c")


def test_who_comes_back_after_the_answer_is_not_asked(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.lose("b")
    middle.arrive("a", wave(1, "a"))
    middle.arrive("d", wave(1, "a"))
    assert middle.find("b") == []


# --------------------------------------------------------------------------------------------- the retries


@pytest.mark.parametrize("reason", [Reason.TIMEOUT, Reason.BUSY, Reason.UNREACHABLE])
def test_what_is_not_delivered_is_sent_again(middle, reason):
    first = sent(middle.arrive("a", wave(1, "a")), "wave")["b"]
    (timer,) = middle.hear_of(Undelivered("b", "wave", first.number, reason))
    assert 0.5 * 2 * LIMITS.retry_first <= timer.delay <= 1.5 * 2 * LIMITS.retry_first
    assert middle.ring(timer.name) == [Send("b", first)]
    middle.hear_of(Delivered("b", "wave", first.number))
    assert middle.ring(timer.name) == []


def test_waits_double_up_to_the_longest(middle):
    middle.arrive("a", wave(1, "a"))
    for tries in range(1, 40):
        (timer,) = middle.hear_of(Undelivered("b", "wave", number(1, "a"), Reason.BUSY))
        usual = min(2.0**tries, LIMITS.retry_max)
        assert 0.5 * usual <= timer.delay <= 1.5 * usual


def test_what_becomes_of_an_older_wave_does_not_count_for_a_newer_one(middle):
    middle.arrive("a", wave(1, "a"))
    middle.arrive("d", wave(1, "e"))
    middle.hear_of(Delivered("b", "wave", number(1, "a")))
    (timer,) = middle.hear_of(Undelivered("b", "wave", number(1, "e"), Reason.TIMEOUT))
    assert sent(middle.ring(timer.name), "wave")["b"].number == number(1, "e")


def test_who_refuses_the_wave_for_good_is_done_without(middle):
    middle.freeze(torch.tensor([1.0]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("d", wave(1, "a"))
    assert kinds(middle.hear_of(Undelivered("b", "wave", number(1, "a"), Reason.WRONG_RUN))) == ["sum"]


def test_a_model_of_which_many_have_no_finite_sum_is_left_out(middle):
    middle.freeze(torch.tensor([2e38]))
    middle.arrive("a", wave(1, "a"))
    middle.arrive("d", wave(1, "a"))
    answer = sent(middle.arrive("b", wave(1, "a")), "sum")["a"]
    assert (answer.vectors["sum"].tolist(), dict(answer.view)) == ([0.0], {})
