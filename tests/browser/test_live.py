"""The live page in a real browser: what it shows is what the stream has told."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest

from node.watch import server
from tests.browser.conftest import GRAPH
from tests.browser.stories import Run

REFUSED = "Failed to load resource"


@pytest.fixture
def run() -> Run:
    """Eight peers, of which n3 is gone from second 20 to second 31."""
    return Run(8, gone=(20, 31))


@pytest.fixture
def live(run, watch, open_page):
    """A watcher of the first ten seconds, and a window on it."""
    watcher = watch(run.story(10, 10))
    window = open_page(watcher.url)
    window.page.wait_for_selector("#state[data-state=live]")
    return watcher, window


def test_figures_are_those_of_the_latest_frame(live, run):
    watcher, window = live
    frame = watcher.story["frames"][-1]
    mean = sum(frame["accuracy"]) / 8
    worst = min(range(8), key=frame["accuracy"].__getitem__)
    assert window.text("#figure-mean") == f"{100 * mean:.1f} %"
    assert window.text("#figure-worst") == f"{100 * frame['accuracy'][worst]:.1f} %"
    assert window.text("#figures div:has(#figure-worst) .note") == f"n{worst}"
    assert float(window.text("#figure-rate")) == pytest.approx(sum(frame["achieved"]), rel=5e-3)
    assert window.text("#figures div:has(#figure-rate) .note") == f"of {run.asked.sum():.3g} asked"
    assert window.text("#figure-sent") == f"{sum(frame['sent']) / 1e6:.2f} MB"
    assert window.text("#figure-alive") == "8 of 8"
    assert window.text("#clock") == "10.0 s"
    assert window.text("#title") == watcher.story["title"]


def test_every_peer_has_a_row_with_its_figures(live):
    watcher, window = live
    frame = watcher.story["frames"][-1]
    for k in range(8):
        cells = window.page.locator(f"#peers tbody tr:nth-child({k + 1}) > *").all_inner_texts()
        cells = [cell.replace("\u202f", " ") for cell in cells]
        assert cells[:3] == [f"n{k}", "learning", f"{100 * frame['accuracy'][k]:.1f} %"]
        assert cells[4].replace(" ", "") == str(frame["steps"][k])


def test_a_peer_that_goes_is_marked_and_comes_back(live, run):
    watcher, window = live
    assert window.peer("n3") == {"l", "named"}
    watcher.tell(run.frame(21), [{"t": 20.5, "kind": "gone", "peer": "n3", "text": "n3 does not answer any more"}])
    window.page.wait_for_selector("#peers tr[data-state=g]")
    assert {"g", "tagged", "blank"} <= window.peer("n3")
    assert window.text("#peers tr[data-state=g]").split()[:2] == ["n3", "gone"]
    assert window.text("#figure-alive") == "7 of 8"
    assert window.text("#figures div:has(#figure-alive) .note") == "1 gone"
    assert window.text("#events > li:first-child > .text") == "n3 does not answer any more"
    assert "gone: n3" in window.page.get_attribute("#graph", "aria-label")
    doubted = [k for k, pair in enumerate(run.pairs) if 3 in pair]
    assert all("cut" in window.edge(k) for k in doubted)
    watcher.tell(run.frame(32), [{"t": 31, "kind": "back", "peer": "n3", "text": "n3 answers again"}])
    window.page.wait_for_selector("#peers tbody:not(:has(tr[data-state=g]))")
    assert window.peer("n3") == {"l", "named"}
    assert not any("cut" in window.edge(k) for k in doubted)


def test_a_frame_changes_elements_and_makes_none(live, run):
    watcher, window = live
    window.ask(f"""{GRAPH}.elements().forEach(e => e.scratch('mine', 1));
        for (const e of document.querySelectorAll('#peers td, canvas, .uplot')) e.mine = 1""")
    watcher.tell(run.frame(11))
    window.page.wait_for_selector("#clock >> text=11.0")
    assert window.ask(f"{GRAPH}.elements().every(e => e.scratch('mine') === 1)")
    assert window.ask("[...document.querySelectorAll('#peers td, canvas, .uplot')].every(e => e.mine === 1)")


def test_looking_back_stays_where_it_is_until_now_is_asked_for(live, run):
    watcher, window = live
    window.page.fill("#time", "4")
    assert window.text("#state") == "looking back"
    then = watcher.story["frames"][4]
    assert window.text("#figure-mean") == f"{100 * sum(then['accuracy']) / 8:.1f} %"
    watcher.tell(run.frame(11))
    window.page.wait_for_selector("#time[max='10']")
    assert window.text("#clock") == f"{then['t']:.1f} s"
    window.page.click("#now")
    assert window.text("#clock") == "11.0 s"
    assert window.text("#state") == "live"


def test_another_story_replaces_everything_but_what_is_looked_at(live):
    watcher, window = live
    window.page.click("#peers tbody button >> text=n2")
    window.page.fill("#time", "2")
    assert window.text("#clock") == "3.0 s"
    other = Run(9)
    watcher.begin_anew({**other.story(5, 5), "title": "another"})
    window.page.wait_for_selector("#peers tbody tr:nth-child(9)")
    assert window.text("#title") == "another"
    assert window.ask(f"[{GRAPH}.nodes().length, {GRAPH}.edges().length]") == [9, len(other.pairs)]
    assert "picked" in window.peer("n2")
    assert window.text("#clock") == "3.0 s"
    assert window.page.input_value("#time") == "2"
    assert window.text("#state") == "looking back"


def test_peers_that_join_later_have_no_past(run, watch, open_page):
    grown, old = Run(9).story(10, 10), run.story(10, 9)
    window = open_page(watch({**grown, "frames": [*old["frames"], grown["frames"][-1]]}).url)
    window.page.wait_for_selector("#peers tbody tr:nth-child(9)")
    assert window.peer("n8") == {"l", "named"}
    window.page.fill("#time", "3")
    assert {"n", "blank"} <= window.peer("n8")
    assert window.text("#figure-alive") == "8 of 9"
    assert window.text("#peers tbody tr:nth-child(9)").split()[:4] == ["n8", "not", "there", "yet"]


def test_the_page_says_that_the_connection_is_lost_and_goes_on_by_itself(run, watch, open_page):
    watcher = watch(run.story(10, 10))
    window = open_page(watcher.url, expected=REFUSED)
    window.page.wait_for_selector("#state[data-state=live]")
    watcher.close()
    window.page.wait_for_selector("#state[data-state=lost]")
    assert window.text("#state").startswith("connection lost")
    assert window.text("#figure-alive") == "8 of 8"
    watch(run.story(22, 22), watcher.port)
    window.page.wait_for_selector("#state[data-state=live]")
    assert window.text("#figure-alive") == "7 of 8"
    assert window.page.is_hidden("#notice")


def test_after_the_end_the_page_stays_until_another_run_follows(run, watch, open_page):
    watcher = watch(run.story(10, 10))
    window = open_page(watcher.url, expected=REFUSED)
    window.page.wait_for_selector("#state[data-state=live]")
    watcher.story |= {"over": True, "merged": {"accuracy": None, "models": 8}}
    watcher.tell({**run.frame(40), "state": "e" * 8})
    window.page.wait_for_selector("#state[data-state=over]")
    assert window.text("#figure-merged") == "8 models"
    assert window.text("#figures div:has(#figure-alive) .note") == "8 ended"
    watcher.close()
    window.page.wait_for_selector("#state[data-state=left]")
    assert re.search("run is over", window.text("#notice"))
    assert window.text("#figure-merged") == "8 models"
    watch(Run(9).story(5, 5), watcher.port)
    window.page.evaluate("dispatchEvent(new Event('focus'))")
    window.page.wait_for_selector("#state[data-state=live]")
    assert window.text("#figure-alive") == "9 of 9"
    assert window.page.locator("#figure-merged").count() == 0


def test_rates_of_a_few_seconds_blame_no_edge(run, watch, open_page):
    watcher = watch(run.story(3, 3))
    window = open_page(watcher.url)
    for t in (4, 5, 6):
        watcher.tell({**run.frame(t), "achieved": [0.0] * len(run.pairs)})
        window.page.wait_for_selector(f"#clock >> text={t}.0")
        assert not [k for k in range(len(run.pairs)) if "slow" in window.edge(k)]
    watcher.tell({**run.frame(40), "achieved": list(run.asked)})
    window.page.wait_for_selector("#clock >> text=40.0")
    assert [k for k in range(len(run.pairs)) if "slow" in window.edge(k)] == [len(run.pairs) - 1]


def test_of_many_events_the_latest_are_shown(live, run):
    watcher, window = live
    watcher.tell(run.frame(11), [{"t": 1 + k / 100, "kind": "back", "peer": f"n{k}", "text": ""} for k in range(600)])
    window.page.wait_for_selector("#clock >> text=11.0")
    assert window.text("#events > li:first-child summary") == "500 peers"
    watcher.tell(run.frame(12), [{"t": 12, "kind": "gone", "peer": "n3", "text": "n3 does not answer any more"}])
    window.page.wait_for_selector("#events > li[data-kind=gone]")
    assert window.text("#events > li:nth-child(2) summary") == "499 peers"


def test_nothing_but_the_stream_is_asked_for(run, watch, open_page):
    watcher = watch(run.story(10, 10))
    window = open_page("about:blank")
    asked: list[str] = []
    window.page.on("request", lambda request: asked.append(request.url))
    window.page.goto(watcher.url)
    window.page.wait_for_selector("#state[data-state=live]")
    assert [url for url in asked if not url.startswith("data:")] == [watcher.url, f"{watcher.url}events"]


def test_before_any_peer_answers_the_page_says_so(run, watch, open_page):
    window = open_page(watch({**run.story(10, 10), "frames": [], "events": [], "promises": []}).url)
    window.page.wait_for_selector("#notice:not([hidden])")
    assert window.text("#notice") == "No peer has answered yet."
    assert window.page.is_hidden("#player")


def test_before_there_are_figures_nothing_is_drawn_and_then_the_first_choice_is(run, watch, open_page):
    blank = {key: [None] * 8 for key in ("accuracy", "loss", "steps")} | {"sent": [0] * 8, "state": "n" * 8}
    curves = {"accuracy": None, "loss": None, "distance": None, "apart": None, "sent": 0}
    watcher = watch({**run.story(1, 1), "frames": [{**run.frame(1), **blank, "curves": curves}]})
    window = open_page(watcher.url)
    window.page.wait_for_selector("#state[data-state=live]")
    assert window.text("#figure-mean") == "–"
    assert window.text("#figure-alive") == "0 of 8"
    assert window.page.locator(".chart:visible").count() == 0
    watcher.tell(run.frame(2))
    window.page.wait_for_selector("#clock >> text=2.0")
    assert window.page.input_value("#colour-by input:checked") == "accuracy"
    window.page.check("#colour-by input[value=stale]", force=True)
    watcher.tell(run.frame(3))
    window.page.wait_for_selector("#clock >> text=3.0")
    assert window.page.input_value("#colour-by input:checked") == "stale"


def test_charts_make_room_for_those_that_have_data_later(run, watch, open_page):
    blank = {"loss": None, "apart": None, "distance": None}
    young = [{**frame, "curves": {**frame["curves"], **blank}} for frame in run.story(5, 5)["frames"]]
    watcher = watch({**run.story(5, 5), "frames": young})
    window = open_page(watcher.url)
    window.page.wait_for_selector("#state[data-state=live]")
    assert window.page.locator(".uplot:visible").count() == 2
    watcher.tell(run.frame(6))
    window.page.wait_for_selector("#clock >> text=6.0")
    window.ask("0")
    boxes = [plot.bounding_box() for plot in window.page.locator(".uplot:visible canvas").all()]
    assert len(boxes) == 4
    assert all(above["y"] + above["height"] <= below["y"] for above, below in pairwise(boxes))


def test_whoever_is_refused_asks_again(run, watch, open_page, monkeypatch):
    monkeypatch.setattr(server, "VIEWERS_MAX", 0)
    window = open_page(watch(run.story(10, 10)).url, expected=REFUSED)
    window.page.wait_for_selector("#state[data-state=lost]")
    monkeypatch.setattr(server, "VIEWERS_MAX", 1)
    window.page.wait_for_selector("#state[data-state=live]")
    assert window.text("#figure-alive") == "8 of 8"


def test_a_long_run_keeps_its_beginning_and_its_latest_minutes(watch, open_page):
    run = Run(4)
    watcher = watch(run.story(600, 600))
    window = open_page(watcher.url)
    window.page.wait_for_selector("#time[max='599']")
    watcher.tell(run.frame(601))
    # of 601 frames the latest 120 stay, and every second of the 481 before them
    window.page.wait_for_selector("#time[max='360']", state="attached")
    assert window.text("#clock") == "10:01"
    window.page.fill("#time", "0")
    assert window.text("#clock") == "1.0 s"
    window.page.fill("#time", "1")
    assert window.text("#clock") == "3.0 s"
