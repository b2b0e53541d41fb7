"""The report of one run, opened as a file in a real browser."""

from __future__ import annotations

import pytest

from tests.browser.conftest import GRAPH
from tests.browser.stories import Run, four, spread
from tests.unit.story_form import check_story

HOSTILE = "<img src=x onerror=\"document.title='pwned'\"><script>document.title='pwned'</script>&amp;"


@pytest.fixture
def run() -> Run:
    """Eight peers, of which n3 is gone from second 20 to second 31."""
    return Run(8, gone=(20, 31))


@pytest.fixture
def report(run, open_report):
    """A minute of them, as a report."""
    story = run.story(60, 60, live=False)
    return story, open_report(story)


@pytest.mark.parametrize("n", [4, 8, 100])
@pytest.mark.parametrize("live", [True, False])
def test_stories_of_these_tests_are_like_those_of_runs(n, live):
    check_story(Run(n, gone=(5, 9)).story(12, 6, live))


def charts(window) -> list[str]:
    """The charts that are shown."""
    return window.page.locator("figure.chart:visible figcaption > span").all_inner_texts()


def test_a_report_shows_the_end(report):
    _, window = report
    assert window.text("#state") == "over"
    assert window.text("#figure-merged") == "96.4 %"
    assert window.text("#clock") == "1:00"
    assert window.page.title() == "gossip on digits, 8 peers"
    assert charts(window) == ["accuracy", "loss", "consensus distance", "sent"]
    assert window.page.is_disabled("#now")


def test_what_there_is_no_data_of_is_left_out(run, open_report):
    story = run.story(60, 12, live=False)
    for frame in story["frames"]:
        frame["distance"] = [four(v) for v in 5 * run.random.uniform(0.5, 1, 8) / frame["t"]]
        frame["curves"] |= {"accuracy": None, "loss": None, "apart": None, "distance": max(frame["distance"])}
        frame |= {"accuracy": [None] * 8, "loss": [None] * 8}
    window = open_report({**story, "merged": None, "promises": [], "about": []})
    assert charts(window) == ["distance to the optimum", "sent"]
    assert window.text("#figures dt >> nth=0") == "mean distance to the optimum"
    worst = max(range(8), key=story["frames"][-1]["distance"].__getitem__)
    assert window.text("#figures div:has(#figure-worst) .note") == f"n{worst}"
    assert window.page.is_hidden("#promises-card")
    assert window.page.is_hidden("#about-card")
    assert window.page.is_hidden("#colour-by")


def test_playing_goes_through_the_run(report):
    _, window = report
    window.page.click("#play")
    window.page.wait_for_selector("#play[aria-label=pause]")
    window.page.wait_for_selector("#state[data-state=past]")
    window.page.wait_for_selector("#clock >> text=/^[2-9]\\.0/")
    window.page.click("#play")
    window.page.wait_for_selector("#play[aria-label=play]")
    assert 1 <= int(window.page.input_value("#time")) < 59


def test_an_event_leads_to_its_moment(report):
    _, window = report
    window.page.click("#events li[data-kind=gone] button")
    assert window.text("#clock") == "20.0 s"
    assert "g" in window.peer("n3")
    later = window.page.locator("#events > li.later").evaluate_all("items => items.map(item => item.dataset.kind)")
    assert later == ["slow", "back"]


def test_events_of_many_peers_are_folded(report):
    _, window = report
    kinds = window.page.locator("#events > li").evaluate_all("items => items.map(item => item.dataset.kind)")
    assert kinds == ["slow", "back", "gone", "suspect", "learning", "joined"]
    assert window.text("#events > li[data-kind=joined] summary") == "8 peers"
    window.page.click("#events > li[data-kind=joined] summary")
    assert window.page.locator("#events > li[data-kind=joined] ol li").count() == 8


def test_promises_are_told_apart_by_words(report):
    story, window = report
    rows = window.page.locator("#promises tbody tr")
    words = rows.locator(".verdict").all_text_contents()
    assert words == [{True: "kept", False: "missed", None: "can’t be told"}[row["well"]] for row in story["promises"]]
    assert story["promises"][0]["achieved"] in rows.nth(0).inner_text()


def test_an_edge_below_its_rate_is_marked_and_others_are_not(run, report, open_report):
    story, window = report
    last = len(run.pairs) - 1
    assert "slow" in window.edge(last)
    assert not [k for k in range(last) if "slow" in window.edge(k)]
    assert "slow" not in open_report({**story, "edges": [{**e, "asked": None} for e in story["edges"]]}).edge(last)


@pytest.mark.parametrize(("key", "column"), [("accuracy", 3), ("sent", 7)])
def test_peers_are_sorted_by_any_column(report, key, column):
    story, window = report
    values = story["frames"][-1][key]
    upwards = [f"n{k}" for k in sorted(range(8), key=values.__getitem__)]
    for wanted, said in ((upwards, "ascending"), (upwards[::-1], "descending")):
        window.page.click(f"#peers thead th[data-key={key}] button")
        assert window.page.locator("#peers tbody th").all_inner_texts() == wanted
        assert window.page.get_attribute(f"#peers thead th:nth-child({column})", "aria-sort") == said


def test_a_picked_peer_has_its_curve_and_its_events(report):
    story, window = report
    window.page.click("#peers tbody button >> text=n3")
    assert {"picked"} <= window.peer("n3")
    own = window.text("figure.chart >> nth=0 >> .own")
    assert own == f"n3 {100 * story['frames'][-1]['accuracy'][3]:.1f} %"
    kinds = window.page.locator("#events > li.own").evaluate_all("items => items.map(item => item.dataset.kind)")
    assert kinds == ["back", "gone", "suspect", "learning", "joined"]
    assert window.text("#picked").startswith("n3: learning, 5 neighbours")


def test_a_click_in_the_network_picks_a_peer(report):
    _, window = report
    spot = window.ask(f"{GRAPH}.getElementById('p5').renderedPosition()")
    window.page.click("#graph", position=spot)
    assert window.text("#picked").startswith("n5")
    assert window.page.locator("#tip strong").inner_text() == "n5"
    window.page.click("#graph", position={"x": 4, "y": 4})
    assert window.text("#picked") == ""


def test_the_pointer_on_an_edge_shows_its_figures(run, report):
    story, window = report
    k = next(k for k, pair in enumerate(run.pairs) if pair == (0, 1))
    middle = window.ask(f"{GRAPH}.getElementById('e{k}').renderedMidpoint()")
    box = window.page.locator("#graph").bounding_box()
    window.page.mouse.move(box["x"] + middle["x"], box["y"] + middle["y"])
    window.page.wait_for_selector("#tip:not([hidden])")
    rows = window.page.locator("#tip").inner_text().splitlines()
    assert rows[0] == "n0 – n1"
    end, asked = story["frames"][-1]["achieved"][k], story["edges"][k]["asked"]
    assert float(rows[rows.index("exchanges a second") + 1]) == pytest.approx(end, rel=5e-3)
    assert float(rows[rows.index("asked") + 1].split(" ")[0]) == pytest.approx(asked, rel=5e-3)


def test_everything_is_within_reach_of_the_keyboard(report):
    _, window = report
    keys = window.page.keyboard
    window.page.focus("#graph")
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    assert window.text("#picked").startswith("n1")
    keys.press("Escape")
    assert window.text("#picked") == ""
    window.page.focus("#time")
    keys.press("ArrowLeft")
    assert window.text("#clock") == "59.0 s"
    reached = set()
    for _ in range(40):
        keys.press("Tab")
        reached.add(window.page.evaluate("document.activeElement.id || document.activeElement.closest('[id]')?.id"))
    assert {"theme", "colour-by", "graph", "events", "peers", "play", "time", "now"} <= reached


def test_colours_of_the_system_and_of_the_switch(run, open_report):
    window = open_report(run.story(60, 3, live=False), color_scheme="dark")
    page = "getComputedStyle(document.body).backgroundColor"
    dark = window.ask(page)
    assert sum(int(part) for part in dark[4:-1].split(",")) < 120
    window.page.click("#theme")
    light = window.ask(page)
    assert sum(int(part) for part in light[4:-1].split(",")) > 600
    assert window.page.get_attribute("#theme", "aria-pressed") == "false"
    assert window.ask("document.cookie + localStorage.length") == "0"
    window.page.emulate_media(color_scheme="light")
    window.page.click("#theme")
    assert window.ask(page) == dark


def test_who_wants_no_motion_gets_none(report):
    _, window = report
    window.page.emulate_media(reduced_motion="reduce")
    window.ask("document.getElementById('state').dataset.state = 'live'")
    assert window.ask("document.getAnimations().length") == 0
    window.page.emulate_media(reduced_motion="no-preference")
    assert window.ask("document.getAnimations().length") == 1


@pytest.mark.parametrize("n", [8, 100])
def test_a_phone_needs_no_scrolling_sideways(n, open_report):
    window = open_report(Run(n, gone=(5, 9)).story(20, 6, live=False), width=390, height=844)
    assert window.ask("document.documentElement.scrollWidth") == 390
    for card in window.page.locator(".card").all():
        box = card.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    assert window.page.locator("#graph").bounding_box()["height"] > 250


def test_a_finger_on_the_network_scrolls_or_picks(run, open_report):
    phone = {"width": 390, "height": 844, "has_touch": True, "is_mobile": True}
    window = open_report(run.story(60, 6, live=False), **phone)
    spot = window.ask(f"{GRAPH}.getElementById('p5').renderedPosition()")
    box = window.page.locator("#graph").bounding_box()
    x, y = box["x"] + spot["x"], box["y"] + spot["y"]
    fingers = window.page.context.new_cdp_session(window.page)
    fingers.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": [{"x": x, "y": y}]})
    for way in (5, 14, 25, 60, 110, 160, 210):
        fingers.send("Input.dispatchTouchEvent", {"type": "touchMove", "touchPoints": [{"x": x, "y": y - way}]})
    fingers.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    window.page.wait_for_function("scrollY > 100")
    assert window.text("#picked") == ""
    window.page.evaluate("scrollTo(0, 0)")
    window.page.touchscreen.tap(x, y)
    window.page.wait_for_selector("#picked >> text=n5")


def test_names_from_elsewhere_are_text(run, open_report):
    story = run.story(60, 60, live=False)
    story |= {"title": HOSTILE, "about": [[HOSTILE, HOSTILE]]}
    story["nodes"][0]["name"] = HOSTILE
    story["promises"][0] |= {"what": HOSTILE, "asked": HOSTILE, "achieved": HOSTILE, "hint": HOSTILE}
    story["events"].append({"t": 50, "kind": HOSTILE, "peer": HOSTILE, "text": HOSTILE})
    window = open_report(story, width=390)
    window.page.click("#peers tbody tr:nth-child(1) button")
    window.page.focus("#graph")
    window.page.keyboard.press("ArrowRight")
    window.page.keyboard.press("ArrowLeft")
    assert window.ask("document.querySelectorAll('img, script:not([type])').length") == 1  # the vendors' own script
    assert window.page.title() == HOSTILE
    assert window.page.locator("#title").text_content() == HOSTILE
    shown = window.page.locator("body").inner_text()
    assert shown.count(HOSTILE) >= 8
    assert window.ask("document.documentElement.scrollWidth") == 390


def test_sections_of_a_report_follow(run, open_report):
    sections = '<h2>How it was run</h2><div class="wide"><table><tr><th>seed</th><td>5</td></tr></table></div>'
    window = open_report(run.story(60, 3, live=False), sections)
    assert window.text("#sections h2") == "How it was run"
    assert window.page.locator("#sections").bounding_box()["width"] > 900


def test_frames_may_tell_less_than_there_are_peers(run, open_report):
    story = run.story(60, 4, live=False)
    for frame in story["frames"][:2]:
        frame |= {key: frame[key][:5] for key in ("state", "accuracy", "loss", "sent", "stale", "steps", "round")}
        frame |= {"achieved": frame["achieved"][:3], "apart": [], "link": ""}
        frame["curves"] |= {"apart": None, "accuracy": spread(run.random.uniform(0, 1, 5))}
    window = open_report(story)
    window.page.fill("#time", "0")
    assert window.text("#figure-alive") == "5 of 8"
    assert {"n", "blank"} <= window.peer("n7")
