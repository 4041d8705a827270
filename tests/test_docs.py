"""What docs/transcribing.md says runs."""

import re

import pytest
from recipe_runs import REPOSITORY
from stand_ins import fenced, lay_out, run_lines

import hfasr
from hfasr.audio import load_audio
from hfasr.corpora import common_voice
from hfasr.corpora.targets import add_target
from hfasr.inference.folder import ray_job

TEXT = (REPOSITORY / "docs" / "transcribing.md").read_text("utf-8")


def test_commands_and_examples_for_a_trained_model(toy_release, verb, tmp_path, monkeypatch):
    pytest.importorskip("flashlight", reason="flashlight-text (extra lm) is not installed")
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path, toy_release)
    addresses = []
    monkeypatch.setattr(ray_job, "transcribe_on_ray", lambda *arguments: addresses.append(arguments[5]) or [])
    # what one section makes others use
    blocks = sorted(fenced(TEXT, "bash"), key=lambda block: "hfasr lm" not in block)
    others = [words for block in blocks for words in run_lines(block, verb, monkeypatch)]
    assert addresses == ["HOST:6379"]
    assert {words[0] for words in others} == {"pip", "ray", "python"}
    for _, script, *options in (words for words in others if words[0] == "python"):
        source = (REPOSITORY / script).read_text("utf-8")
        assert all(option[2:] in source for option in options if option.startswith("--"))
    assert (tmp_path / "aligned" / "day" / "b.TextGrid").is_file()
    assert (tmp_path / "runs" / "kk_char-on-ISSAI_KSC2-against-kk_char-lm" / "comparison.json").is_file()

    waveform = load_audio("talk.wav")
    rows = add_target(common_voice(toy_release, splits=["test"]), hfasr.Phonemizer("ky"))
    known = {
        "hfasr": hfasr, "waveform": waveform, "other": waveform[:9000], "samples": waveform, "paths": ["talk.wav", "speech.wav"],
        "lines": ["ал келди", "биз келдик"], "corpus": rows,
    }  # fmt: skip
    for example in fenced(TEXT, "python"):
        exec(example, known)
    assert [type(transcript).__name__ for transcript in known["found"]] == ["Transcript"] * 2
    assert len(list(known["pieces"])) == 1


def test_links_lead_to_headings():
    headings = {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in re.findall(r"^#+ (.*)$", TEXT, re.M)}
    assert set(re.findall(r"\]\(#([^)]+)\)", TEXT)) <= headings
