"""Every knob: where its value comes from, what is refused, and in which words."""

from __future__ import annotations

import json
import math

import pytest

from node.config import RunConfig, dump_toml, duration_s, load_config, parse_options, size_bytes
from node.errors import ConfigError, unknown


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "node.toml"
    path.write_text('lr = 0.3\nbatch_size = 8\nduration = "2m"\n[options]\nhidden = "16"\n')
    return path


def test_flag_before_environment_before_file_before_default(file):
    environ = {"GRADVINE_LR": "0.2", "GRADVINE_BATCH_SIZE": "4", "PATH": "/bin"}
    config = load_config({"lr": "0.1", "seed": None}, file, environ)
    assert (config.lr, config.batch_size, config.duration, config.momentum) == (0.1, 4, 120.0, None)
    assert load_config({}, file, environ).lr == 0.2
    assert load_config({}, file, {}).lr == 0.3
    assert load_config({}, None, {}).lr == RunConfig().lr == 0.1


def test_options_from_each_source(file):
    assert load_config({}, file, {}).options == {"hidden": "16"}
    assert load_config({}, file, {"GRADVINE_OPTIONS": "hidden=32 rho=0.1"}).options == {"hidden": "32", "rho": "0.1"}
    given = {"options": {"hidden": "64"}}
    assert load_config(given, file, {"GRADVINE_OPTIONS": "a=b"}).options == {"hidden": "64", "a": "b"}


def test_the_environment_is_the_processs_own(monkeypatch):
    monkeypatch.setenv("GRADVINE_SEED", "41")
    assert load_config({}).seed == 41


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"lrr": 1}, ["lrr", "did you mean 'lr'?"]),
        ({"batchsize": 1}, ["batchsize", "did you mean 'batch_size'?"]),
        ({"lr": "-1"}, ["lr = '-1'", "greater than 0"]),
        ({"lr": "nan"}, ["lr", "finite"]),
        ({"lr": "fast"}, ["lr = 'fast'", "number"]),
        ({"momentum": "1"}, ["momentum", "less than 1"]),
        ({"seed": "-1"}, ["seed", "greater than or equal to 0"]),
        ({"seed": str(2**63)}, ["seed"]),
        ({"steps": "0"}, ["steps", "greater than 0"]),
        ({"keep": "0"}, ["keep", "greater than or equal to 1"]),
        ({"duration": "ten"}, ["duration = 'ten'", "such as 10s, 5m or 50ms"]),
        ({"duration": "0s"}, ["duration", "greater than 0"]),
        ({"duration": "inf"}, ["duration"]),
        ({"inbox": "many"}, ["inbox = 'many'", "such as 64MiB or 2GB"]),
        ({"durability": "maybe"}, ["durability = 'maybe'", "'exact' or 'periodic'"]),
        ({"run": "No Spaces"}, ["run = 'No Spaces'"]),
        ({"run": "../x"}, ["run"]),
    ],
)
def test_what_cant_be_used_is_one_sentence(flags, words):
    with pytest.raises(ConfigError) as caught:
        load_config(flags, None, {})
    sentence = str(caught.value)
    assert [word for word in words if word not in sentence] == []
    assert "\n" not in sentence
    assert "validation error" not in sentence


def test_unknown_keys_in_the_environment_and_in_files_are_seen(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'seed'"):
        load_config({}, None, {"GRADVINE_SED": "1"})
    path = tmp_path / "node.toml"
    path.write_text("momentun = 0.9\n")
    with pytest.raises(ConfigError, match="did you mean 'momentum'"):
        load_config({}, path, {})


@pytest.mark.parametrize("text", [b"lr = = 3", b"\xff\xfe", None])
def test_files_that_cant_be_read(tmp_path, text):
    path = tmp_path / "node.toml"
    if text is not None:
        path.write_bytes(text)
    with pytest.raises(ConfigError, match=r"node\.toml"):
        load_config({}, path, {})


def test_what_was_written_down_is_read_again(tmp_path):
    config = load_config({"lr": "0.05", "steps": "7", "options": {"hidden": '6"4', "a b": "ü\\n"}}, None, {})
    path = tmp_path / "config.toml"
    path.write_text(dump_toml(config))
    assert load_config({}, path, {}) == config


def test_it_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        RunConfig().lr = 3


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("10s", 10), ("5m", 300), ("50ms", 0.05), ("1h30m", 5400), ("1d", 86400), (".5s", 0.5), ("2.5m", 150), ("7", 7)],
)
def test_durations(text, seconds):
    assert duration_s(text) == pytest.approx(seconds)
    assert load_config({"duration": text}, None, {}).duration == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "s", "10 s", "10x", "1s2", "-1s", "1e"])
def test_no_durations(text):
    with pytest.raises(ConfigError):
        load_config({"duration": text}, None, {})


@pytest.mark.parametrize(
    ("text", "count"),
    [("64MiB", 64 * 2**20), ("2GB", 2 * 10**9), ("400KB", 400_000), ("1.5KiB", 1536), ("12", 12), ("3 B", 3)],
)
def test_sizes(text, count):
    assert size_bytes(text) == count


@pytest.mark.parametrize("text", ["", "MiB", "64mib", "-1B", "1TiB", "9" * 400])
def test_no_sizes(text):
    with pytest.raises(ValueError, match="such as 64MiB"):
        size_bytes(text)


def test_options_keep_what_follows_the_first_equals_sign():
    assert parse_options(["a=b=c", "hidden=64,64", "empty="]) == {"a": "b=c", "hidden": "64,64", "empty": ""}
    with pytest.raises(ConfigError, match="--set hidden can't be used: write --set key=value"):
        parse_options(["hidden"])


def test_units():
    assert RunConfig().units(3.0, 0.05) == pytest.approx(60.0)
    assert RunConfig().units(math.inf, 0.05) == math.inf


@pytest.mark.parametrize(("text", "unit"), [("auto", "auto"), ("50ms", 0.05), ("2", 2.0)])
def test_a_unit_is_a_duration_or_found_out(text, unit):
    config = load_config({"time_unit": text}, environ={})
    assert config.time_unit == unit
    assert f"time_unit = {json.dumps(unit)}\n" in dump_toml(config)


@pytest.mark.parametrize("text", ["0", "-1s", "inf", "1e99", "1e-9", "0.9ms", "61m", "nan", "automatic", True, [1]])
def test_no_units(text):
    with pytest.raises(ConfigError, match="write auto, or a duration from 1ms to 1h"):
        load_config({"time_unit": text}, environ={})


def test_true_is_no_length_of_time(tmp_path):
    path = tmp_path / "run.toml"
    for key in ("time_unit", "duration", "report_every"):
        path.write_text(f"{key} = true\n")
        with pytest.raises(ConfigError, match=f"{key} = True can't be used: write"):
            load_config({}, path, {})


def test_near_names_are_suggested_and_far_ones_are_not():
    assert (
        unknown("codec", "hlaf", ["half", "none"]) == "unknown codec 'hlaf': did you mean 'half'? (known: half, none)"
    )
    assert unknown("codec", "zzz", ["half", "none"]) == "unknown codec 'zzz': (known: half, none)"
    assert unknown("codec", "x", []) == "unknown codec 'x': (known: none)"
