"""Findings are shown, and reported, without what variables hold."""

from __future__ import annotations

import json

from stages.diagnosis.finding import Finding, is_usable, relevant_names, report, without_secrets

ENVIRONMENT = {
    "AWS_SECRET_ACCESS_KEY": "abcd/1234+secret",
    "HF_TOKEN": "hf_abcdefgh",
    "MY_OWN_PASSWORD": "correct horse",
    "HF_HOME": "/data/of/alice",
    "RAY_ADDRESS": "10.1.2.3:6379",
    "OMP_NUM_THREADS": "1",
    "HTTPS_PROXY": "http://alice:pw@10.0.0.1:3128",
    "EMPTY_TOKEN": "",
    "SHELL": "/bin/bash",
}


def test_values_of_variables_never_show() -> None:
    what = " ".join(ENVIRONMENT.values()) + " and http://bob:word@host/x?q=1"
    text = json.dumps(
        report([Finding("ray", "problem", what, "Use hf_abcdefgh."), Finding("a", "ok", "1")], ENVIRONMENT)
    )
    for name in ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "MY_OWN_PASSWORD", "HF_HOME", "RAY_ADDRESS"):
        assert ENVIRONMENT[name] not in text
    assert "alice" not in text and "bob" not in text and ":word" not in text and ":pw" not in text
    assert "$HF_HOME" in text and "***" in text
    assert "/bin/bash" in text, "what says nothing of ours stays"


def test_a_report_names_variables_that_libraries_of_ours_go_by() -> None:
    names = relevant_names(ENVIRONMENT)
    assert names == ["AWS_SECRET_ACCESS_KEY", "HF_HOME", "HF_TOKEN", "HTTPS_PROXY", "OMP_NUM_THREADS", "RAY_ADDRESS"]
    assert report([], ENVIRONMENT)["environment"] == names


def test_a_problem_makes_it_unusable_and_a_warning_does_not() -> None:
    assert is_usable([Finding("a", "warning", "x"), Finding("b", "note", "x")])
    assert not is_usable([Finding("a", "ok", "x"), Finding("b", "problem", "x")])


def test_a_line_holds_the_remedy() -> None:
    assert Finding("a", "warning", "slow", "Wait.").line() == "a: slow. Wait."
    assert Finding("a", "ok", "quick").line() == "a: quick"


def test_a_sentence_that_ends_has_one_full_stop() -> None:
    assert Finding("ray", "problem", "no cluster answers.", "Start it.").line() == "ray: no cluster answers. Start it."


def test_short_values_are_no_secrets() -> None:
    assert without_secrets("1 device", {"CUDA_VISIBLE_DEVICES": "1", "X_TOKEN": "dev"}) == "1 device"


def test_words_of_messages_stay_whatever_variables_hold_them() -> None:
    environment = {"DIFFUSERS_VERBOSITY": "error", "RAY_AUTH_MODE": "token", "X_PASSWORD": "hunter"}
    assert without_secrets("RPC error: no token for hunter", environment) == "RPC error: no token for ***"
