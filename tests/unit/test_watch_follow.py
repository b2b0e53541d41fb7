"""What a watcher makes of answers: states, events, rates and the end of a run, second by second and by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from node.meter import Meter, PeerStatus, Status
from node.watch.answer import Answer, read_answer
from node.watch.follow import OVER_S, Follower
from tests.unit.story_form import check_news, check_story
from topology.planning import build_plan


def answer(name: str, **changes: Any) -> Answer:
    """A peer's answer, written and read as it travels."""
    known = {"run": "r", "algorithm": "gossip", "task": "digits", "phase": "learning", "unit_seconds": 0.5}
    status = Status(name=name, **(known | changes))
    return read_answer(Meter(status).pages()["/status"]().body)


def near(state: str = "alive", exchanges: int = 0, hz: float = 4.0, distance: float = 0.25) -> PeerStatus:
    return PeerStatus(state, hz, 0.0, exchanges, distance)


class Watcher:
    """A follower of three peers in a line, asked once a second; it checks all that is told."""

    def __init__(self, plan: bool = True, keys: list[str] | None = None) -> None:
        self.plan = build_plan("line", 3) if plan else None
        self.follower = Follower(keys or ["n0", "n1", "n2"], self.plan)
        self.now_s = 1000.0

    def look(self, *answers: Answer, after_s: float = 1.0, by: Mapping[str, Answer] | None = None) -> dict[str, Any]:
        self.now_s += after_s
        news = self.follower.take(by or {one.name: one for one in answers}, self.now_s)
        story = json.loads(self.follower.story.text())
        check_story(story)
        told: dict[str, Any] = json.loads(self.follower.story.news(news.frame, news.events))
        check_news(told, len(story["nodes"]), len(story["edges"]))
        return told | {"whole": news.whole}

    @property
    def story(self) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self.follower.story.text())
        return read


def three(t: float, **more: Any) -> list[Answer]:
    """All three, alive, in the middle of a run."""
    lines = {"n0": ["n1"], "n1": ["n0", "n2"], "n2": ["n1"]}
    return [
        answer(name, seconds=t, units=2 * t, gradients=int(10 * t), peers={other: near() for other in others}, **more)
        for name, others in lines.items()
    ]


def kinds(told: dict[str, Any]) -> list[tuple[str, str]]:
    return [(event["kind"], event["peer"]) for event in told["events"]]


# ----------------------------------------------------------------------------------------------- states and events


def test_peers_come_one_by_one() -> None:
    watcher = Watcher()
    assert watcher.look()["frame"]["state"] == "nnn"
    told = watcher.look(answer("n0", phase="waiting", peers={"n1": near("gone")}))
    assert (told["frame"]["state"], told["frame"]["link"]) == ("wnn", "??")
    assert kinds(told) == [("joined", "n0")]
    told = watcher.look(*three(0.5))
    assert told["frame"]["state"] == "lll"
    assert kinds(told) == [("learning", "n0"), ("joined", "n1"), ("joined", "n2")]
    assert watcher.story["title"] == "gossip on digits, 3 peers"


def test_a_peer_that_dies_is_gone_after_two_questions_and_two_seconds() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    assert watcher.look(*three(11)[:2])["frame"]["state"] == "lll"
    told = watcher.look(*three(12)[:2])
    assert told["frame"]["state"] == "llg"
    assert kinds(told) == [("gone", "n2")]
    assert sorted(told["frame"]["link"]) == ["a", "g"]
    assert told["frame"]["stale"] == [0, 0, 2]
    assert told["frame"]["steps"] == [120, 120, 100], "what was last known of it"
    assert told["over"] is False


def test_a_question_that_is_missed_is_no_death() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    watcher.look(*three(10.5)[:2], after_s=0.5)
    watcher.look(*three(11)[:2], after_s=0.5)
    assert watcher.look(*three(11.2), after_s=0.2)["frame"]["state"] == "lll"


def test_a_peer_that_is_back_says_what_it_has_lost() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    for _ in range(3):
        watcher.look(*three(10)[:2])
    told = watcher.look(*three(13)[:2], answer("n2", phase="waiting", peers={}))
    assert (told["frame"]["state"], kinds(told)) == ("llw", [("back", "n2")])
    told = watcher.look(*three(14)[:2], answer("n2", seconds=14.0, gradients=70, peers={"n1": near()}))
    assert [event["text"] for event in told["events"]] == ["n2 learns again, and lost 30 local steps"]


def test_a_peer_that_others_doubt_is_suspect() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    n0, _, n2 = three(11)
    told = watcher.look(n0, answer("n1", seconds=11.0, gradients=110, peers={"n0": near(), "n2": near("suspect")}), n2)
    assert (told["frame"]["state"], kinds(told)) == ("lls", [("suspect", "n2")])
    assert sorted(told["frame"]["link"]) == ["a", "s"]
    told = watcher.look(*three(12))
    assert (told["frame"]["state"], kinds(told)) == ("lll", [("back", "n2")])


def test_a_run_ends_with_its_merge() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    told = watcher.look(*three(11, phase="merging"))
    assert (told["frame"]["state"], {kind for kind, _ in kinds(told)}) == ("mmm", {"merging"})
    told = watcher.look(*three(12, phase="merging", models_merged=3))
    assert told["merged"] == {"accuracy": None, "models": 3}
    assert {kind for kind, _ in kinds(told)} == {"merged"}
    watcher.look()
    told = watcher.look()
    assert (told["frame"]["state"], told["over"]) == ("eee", True)
    assert [kind for kind, _ in kinds(told)] == ["ended"] * 3 + ["over"]
    assert watcher.look()["events"] == []


@pytest.mark.parametrize(("left", "state"), [(1.5, "e"), (40.0, "g")])
def test_a_peer_at_the_end_of_its_time_has_ended(left: float, state: str) -> None:
    watcher = Watcher()
    watcher.look(*three(10, seconds_left=left))
    for _ in range(2):
        told = watcher.look(*three(11)[:2])
    assert told["frame"]["state"] == "ll" + state


def test_peers_that_fall_silent_together_have_ended_when_nobody_is_left() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    watcher.look(*three(11)[:2])
    for _ in range(int(OVER_S)):
        told = watcher.look()
        assert told["over"] is False or told["frame"]["state"] == "eee"
    assert told["over"] is True
    assert "g" in json.dumps([frame["state"] for frame in watcher.story["frames"]])


def test_a_restart_of_all_is_no_end() -> None:
    watcher = Watcher()
    watcher.look(*three(10, seconds_left=50.0))
    watcher.look(*three(11, phase="draining", seconds_left=49.0))
    states = [watcher.look() for _ in range(8)]
    assert (states[-1]["frame"]["state"], {told["over"] for told in states}) == ("eee", {False})
    told = watcher.look(*three(11, seconds_left=49.0))
    assert (told["frame"]["state"], told["over"]) == ("lll", False)
    watcher.look(*three(12, phase="draining", seconds_left=1.0))
    watcher.look()
    assert watcher.look()["over"] is True, "at the end of its time"


def test_a_run_is_not_over_while_others_are_still_to_come() -> None:
    watcher = Watcher()
    watcher.look(*three(10, phase="merging")[:1])
    assert [watcher.look()["over"] for _ in range(3)] == [False] * 3
    assert watcher.look(after_s=OVER_S)["over"] is True


def test_another_run_at_the_same_addresses_is_another_story() -> None:
    watcher = Watcher()
    watcher.look(*three(100, phase="merging"))
    watcher.look()
    assert watcher.look()["over"] is True
    told = watcher.look(*three(3))
    assert told["whole"] is True
    story = watcher.story
    assert (story["over"], len(story["frames"]), {event["kind"] for event in story["events"]}) == (False, 1, {"joined"})


def test_peers_of_another_run_wait_before_they_learn() -> None:
    watcher = Watcher()
    watcher.look(*three(100, phase="merging"))
    watcher.look()
    assert watcher.look()["over"] is True
    waiting = [answer(name, phase="waiting", peers={}) for name in ("n0", "n1", "n2")]
    for _ in range(3):
        told = watcher.look(*waiting)
        assert (told["over"], told["frame"]["state"]) == (False, "www")
    told = watcher.look(*waiting[:1], *three(1)[1:])
    assert (told["whole"], told["frame"]["t"], told["frame"]["state"]) == (True, 1, "wll")
    assert len(watcher.story["frames"]) == 1


def test_a_run_that_goes_on_after_its_end_is_the_same_story() -> None:
    watcher = Watcher()
    watcher.look(*three(100))
    silent = [watcher.look()["over"] for _ in range(int(OVER_S) + 2)]
    assert (silent[0], silent[-1]) == (False, True)
    watcher.look(*[answer(name, phase="waiting", peers={}) for name in ("n0", "n1", "n2")])
    watcher.look(*three(99))
    for t in range(100, 140):  # later, one of them comes back from an old snapshot
        watcher.look(*three(t)[:2], answer("n2", seconds=t - 60.0))
    assert watcher.story["frames"][0]["t"] == 100


def test_what_is_over_stands_still() -> None:
    watcher = Watcher()
    watcher.look(*three(10))
    watcher.look(*three(11, phase="merging", models_merged=3))
    watcher.look()
    assert watcher.look()["over"] is True
    frames, last = len(watcher.story["frames"]), watcher.story["frames"][-1]["t"]
    for _ in range(1000):
        watcher.look()
    assert (len(watcher.story["frames"]), watcher.story["frames"][-1]["t"]) == (frames, last)


def test_time_is_that_of_the_run_and_goes_on_when_nobody_answers() -> None:
    watcher = Watcher()
    assert watcher.look()["frame"]["t"] == 0
    assert watcher.look(*three(40))["frame"]["t"] == 40
    assert watcher.look(*three(41.3))["frame"]["t"] == 41
    assert watcher.look()["frame"]["t"] == 42
    far = [answer("n0", seconds=9e9), *three(43)[1:]]
    assert watcher.look(*far)["frame"]["t"] == 43, "one odd clock moves nobody"


# ------------------------------------------------------------------------------------------- who can't be believed


def test_who_answers_in_place_of_another_has_not_answered() -> None:
    watcher = Watcher()
    n0, n1, _ = three(10)
    assert watcher.look(by={"n0": n0, "n1": n1, "n2": answer("n1", seconds=10.0)})["frame"]["state"] == "lln"


def test_names_that_nobody_knows_are_not_drawn_where_membership_is_closed() -> None:
    watcher = Watcher()
    watcher.look(answer("n0", peers={"n1": near(), "ghost": near()}))
    assert [node["name"] for node in watcher.story["nodes"]] == ["n0", "n1", "n2"]


def test_in_an_open_run_others_appear() -> None:
    watcher = Watcher()
    known = {"n1": PeerStatus("alive"), "n7": PeerStatus("alive"), "n8": PeerStatus("gone")}
    told = watcher.look(answer("n0", algorithm="modest", round=4, peers=known))
    assert told["whole"] is True
    story = watcher.story
    assert [node["name"] for node in story["nodes"]] == ["n0", "n1", "n2", "n7", "n8"]
    assert len(story["edges"]) == 2, "the plan's: those who only know each other are not joined"
    assert told["frame"]["state"] == "lnnlg"
    assert told["frame"]["round"] == [4, None, None, None, None]


def test_without_a_plan_all_comes_from_the_peers() -> None:
    watcher = Watcher(plan=False, keys=["10.0.0.1:9700", "10.0.0.2:9700"])
    n0, n1, _ = three(10)
    told = watcher.look(by={"10.0.0.1:9700": n1, "10.0.0.2:9700": n0})
    story = watcher.story
    names = [node["name"] for node in story["nodes"]]
    assert sorted(names) == ["n0", "n1", "n2"]
    assert {frozenset((names[edge["a"]], names[edge["b"]])) for edge in story["edges"]} == {
        frozenset(("n0", "n1")),
        frozenset(("n1", "n2")),
    }
    assert {edge["asked"] for edge in story["edges"]} == {4}
    assert told["frame"]["state"] == "lll", "n2 can't be asked, and others say that it is there"


def test_a_run_of_which_only_some_can_be_asked_is_over_when_these_have_ended() -> None:
    watcher = Watcher(plan=False, keys=["one"])
    told = {}
    for t in range(10, 15):
        told = watcher.look(by={"one": answer("n1", seconds=float(t), peers={"n0": near(exchanges=4 * t)})})
    row = {row["what"]: row for row in told["promises"]}["exchanges a second"]
    assert (row["asked"], row["achieved"]) == ("4", "4")
    watcher.look(by={"one": answer("n1", phase="merging", seconds=15.0, peers={"n0": near()})})
    watcher.look()
    told = watcher.look()
    assert (told["frame"]["state"], told["over"]) == ("ee", True)


NUMBERS = st.none() | st.sampled_from([0.0, 1e-300, 1.0, 1e10, 1e300, -1e300]) | st.floats(-1e6, 1e6)
COUNTS = st.none() | st.integers(0, 2**63 - 1)
WORDS = st.fixed_dictionaries(
    {"state": st.sampled_from(["alive", "suspect", "gone"])},
    optional={"rate_asked_hz": st.floats(1e-9, 1e6), "exchanges": COUNTS, "distance": NUMBERS},
)
ANSWERS = st.fixed_dictionaries(
    {
        "name": st.sampled_from(["n0", "n1", "n2"]),
        "phase": st.sampled_from(["waiting", "learning", "merging", "draining"]),
        "algorithm": st.sampled_from(["gossip", "dadao", "modest", "?"]),
        "task": st.sampled_from(["digits", "</script>"]),
        "run": st.just("r"),
        "peers": st.dictionaries(st.sampled_from(["n0", "n1", "n2", "n9"]), WORDS),
    },
    optional={
        **dict.fromkeys(("loss", "distance", "behind_units", "exchange_p99_units"), NUMBERS),
        **dict.fromkeys(("seconds", "units"), st.sampled_from([0.0, 1e-300, 7.0, 1e10])),
        **dict.fromkeys(("gradients", "bytes_sent", "models_merged", "round"), COUNTS),
        "unit_seconds": st.sampled_from([1e-6, 0.5, 1e6]),
    },
)


@settings(max_examples=60)
@given(looks=st.lists(st.lists(ANSWERS, max_size=3), min_size=1, max_size=6), plan=st.booleans())
def test_whatever_is_believed_can_be_told(looks: list[list[dict[str, Any]]], plan: bool) -> None:
    watcher = Watcher(plan)
    for look in looks:
        answers = [read_answer(json.dumps(one).encode()) for one in look]
        watcher.look(by={f"n{k}": one for k, one in enumerate(answers)}, after_s=20.0)
