"""report.html in a real browser: what a reader sees, that nothing in a transcript runs, and that a clip plays."""

import io
import re
from pathlib import Path

import numpy as np
import pytest

from hfasr.audio import write_audio
from hfasr.evaluation.metrics import evaluate_predictions
from hfasr.evaluation.report import describe_difference, public_copy, write_report

ATTACK = "<script>document.title = 'broken in'</script><img src=x onerror=\"document.title = 'broken in'\">"


def _tone(seconds: float = 0.4) -> bytes:
    file = io.BytesIO()
    write_audio(file, 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 5).astype(np.float32), format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def utterances() -> list[dict]:
    spoken = ["ɑ l | k e l d[ i", "b i r | tS oe", "o S o l | u tS u r d[ ɑ", "m e n"]
    heard = ["ɑ l | k e l t[ i", "b i r | tS oe", "o S u l | u tS u d[ ɑ ɑ", "m e n"]
    rows = []
    for index in range(16):
        reference, hypothesis = spoken[index % 4], heard[index % 4]
        rows.append(
            {
                "split": "validation" if index < 4 else "test",
                "id": f"clip_{index}.mp3",
                "text": f"сүйлөм {index}",
                "reference": reference,
                "hypothesis": hypothesis,
                "duration": 0.4 + index,
                "speaker": f"speaker-{'x' * 60}{index % 3}",
                "gender": None if index % 2 else "female",
                "audio": _tone(),
            }
        )
    rows[6] |= {"text": ATTACK, "id": ATTACK, "hypothesis": f"☃ {ATTACK}", "speaker": ATTACK}
    rows[8] |= {"audio": b"this is not audio", "hypothesis": ""}
    rows[10] |= {"duration": 75.0}
    rows[9] |= {"duration": float("nan")}
    return rows


@pytest.fixture(scope="module")
def report(utterances, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    details = {"Model": "quartznet-small", "Note": ATTACK}
    assert write_report(path, utterances, unit="phoneme", title=f"Run {ATTACK}", details=details) == path
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]
    return path


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_shows_in_a_browser_without_running_or_fetching_anything(browser, report, width, scheme):
    page = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme).new_page()
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(report.as_uri())
    assert page.title() == f"Run {ATTACK}"
    assert page.locator("h1").inner_text() == f"Run {ATTACK}"
    assert page.locator("img").count() == 0
    assert complaints == []
    assert requests == [report.as_uri()]
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    page.context.close()


def test_numbers_are_those_of_the_results(browser, report, utterances):
    results = evaluate_predictions(utterances, "phoneme")["test"]
    page = browser.new_page()
    page.goto(report.as_uri())
    cards = page.locator(".card strong").all_inner_texts()
    assert cards[:2] == [f"{100 * results['per']:.2f} %", f"{100 * results['pfer']:.2f} %"]
    assert cards[2] == "50 %"
    row = page.locator("table.plain >> nth=0").locator("tr", has_text="test").locator("td").all_inner_texts()
    assert row[6:9] == [str(results[name]) for name in ("substitutions", "deletions", "insertions")]
    heat = page.locator("table.heat td[title^='d[ → t[']")
    assert heat.get_attribute("title").startswith("d[ → t[: 2 times")
    page.close()


def test_clip_plays_when_asked_and_a_bad_one_says_why(browser, report):
    page = browser.new_page()
    page.goto(report.as_uri())
    assert page.locator("audio").count() == 0
    page.locator("button[data-clip]").first.click()
    page.wait_for_function("document.querySelector('audio').duration > 0.3")
    assert page.evaluate("document.querySelector('audio').error") is None
    worst = page.locator("article", has_text="clip_8.mp3")
    assert "No player, the audio could not be read" in worst.inner_text()
    assert worst.locator("button").count() == 0
    assert "No player: longer than 60 s" in page.locator("article", has_text="clip_10.mp3").inner_text()
    page.close()


def test_number_of_clips_is_limited(utterances, tmp_path):
    def clips(**options) -> int:
        path = write_report(tmp_path / "report.html", utterances, unit="phoneme", title="t", **options)
        return path.read_text(encoding="utf-8").count("<button")

    assert clips(audio_clips=0) == 0
    assert clips(audio_clips=1, worst=5) == 1


def test_public_copy_has_no_recordings_and_no_speakers(report):
    page = report.read_text(encoding="utf-8")
    copy = public_copy(page)
    assert "speaker-xxxx" in page
    assert "speaker-xxxx" not in copy
    assert "data-clip=" in page
    assert not re.search(r'data-clip="|text/plain', copy)
    for kept in ("Worst utterances", "Confusion map", "<h3>Gender", "</html>", "clip_8.mp3"):
        assert kept in copy


@pytest.mark.parametrize("unit", ["word", "character"])
def test_other_units(unit, tmp_path, browser):
    words = ["бул", "китеп", "жакшы", "中文字", "абдан", "көп"]
    rows = [
        {
            "split": "dev",
            "id": index,
            "text": "т",
            "reference": f"{words[index % 6]} {words[index % 5]}",
            "hypothesis": words[index % 4],
            "duration": None,
        }
        for index in range(30)
    ]
    path = write_report(tmp_path / "report.html", rows, unit=unit, title="Characters")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.heat").count() == (unit == "character")
    assert page.locator(".card", has_text="dev").count() == 3
    page.close()


def test_many_symbols_are_cut_to_a_readable_map(tmp_path, browser):
    han = [chr(0x4E00 + index) for index in range(400)]
    rows = [
        {
            "split": "test",
            "id": str(index),
            "text": "",
            "reference": "".join(han[index : index + 9]),
            "hypothesis": "".join(han[index + 1 : index + 9]),
            "duration": 3.0,
        }
        for index in range(390)
    ]
    path = write_report(tmp_path / "report.html", rows, unit="character", title="Mandarin")
    page = browser.new_page()
    page.goto(path.as_uri())
    assert page.locator("table.heat tbody tr").count() == 46
    assert "others are not" in page.locator("body").inner_text()
    assert "Word error rate" not in page.content()  # there are no words in text without spaces
    page.close()


def test_perfect_run_has_no_error_sections(utterances, tmp_path):
    rows = [row | {"hypothesis": row["reference"]} for row in utterances]
    page = write_report(tmp_path / "report.html", rows, unit="phoneme", title="Perfect", audio_clips=0).read_text(encoding="utf-8")
    assert "Worst utterances" not in page
    assert "Most frequent errors" not in page
    assert "0.00 %" in page


def test_bad_input_is_named(utterances, tmp_path):
    with pytest.raises(ValueError, match="no utterances"):
        write_report(tmp_path / "r.html", [], unit="phoneme", title="t")
    row = {key: value for key, value in utterances[0].items() if key != "reference"}
    with pytest.raises(ValueError, match=r"'clip_0.mp3' has no reference, found split, id"):
        write_report(tmp_path / "r.html", [row], unit="phoneme", title="t")
    assert list(tmp_path.iterdir()) == []


def test_differences_in_words():
    assert describe_difference("t[", "d[") == "voiced"
    assert describe_difference("t[", "☃") == "no features known"
    assert describe_difference("ɑ", "s").endswith("of 24 features")
