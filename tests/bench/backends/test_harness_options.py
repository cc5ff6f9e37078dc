"""Options that the harness heeds: every backend takes them, and they do what they say."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bench_fakes import fake_case, tiny_files

import pipelines
from bench.backends import REGISTRY, check_options, facts
from bench.backends.base import HARNESS_OPTIONS
from bench.record.case import Status
from bench.studies import noise
from bench.worker.messages import Context
from scarlet.errors import BenchError


@pytest.mark.parametrize("name", REGISTRY)
def test_every_backend_takes_them_and_none_means_something_else_by_their_names(name: str) -> None:
    given = {
        "aa": "a",
        "ahead": "2",
        "decode_threads": "1",
        "delay_us": "2000",
        "l2": "cold",
        "limit_us": "20000",
        "pass": "whole",
        "pin": "no",
        "revision": "x",
    }
    assert given.keys() == HARNESS_OPTIONS.keys()
    assert noise.OPTION in HARNESS_OPTIONS
    check_options(name, given)
    assert not HARNESS_OPTIONS.keys() & facts(name).choices.keys()
    for option, value in (("decode_threads", "0"), ("ahead", "some"), ("pin", "maybe")):
        with pytest.raises(BenchError, match=f"{name}.{option} is '{value}'"):
            check_options(name, {option: value})
    with pytest.raises(BenchError) as caught:
        check_options(name, {"decode_thread": "1"})
    assert f"Did you mean {name}.decode_threads?" in caught.value.do


def test_the_pipeline_gets_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(pipelines, "open_pipeline", lambda name, images, batch, threads, how: asked.append(threads))
    context = Context(run="", data="", files=tiny_files())
    for options in ({}, {"decode_threads": "3"}):
        context.open_pipeline(fake_case("throughput", **options), [])
    assert asked == [1, 3]


def test_a_throughput_case_says_what_it_was_given(run_cases: Callable[..., Any], tmp_path: Path) -> None:
    case = fake_case("throughput", batch=2, latency_ns="80000000", decode_threads="2", ahead="3")
    folder, _ = run_cases(case, budget_seconds=0.1)
    (result,) = folder.case_results()
    assert result.status is Status.OK
    assert (result.metrics["decode_threads"], result.metrics["slots"]) == (2, 1)
    assert result.metrics["cores"] >= 1
