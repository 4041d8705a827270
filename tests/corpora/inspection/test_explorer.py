"""The explorer page in a real browser: what it shows, how it answers, that clips play and that nothing in a transcript runs."""

import io
import json
import random
import re
import time
from pathlib import Path

import numpy as np
import pytest
from datasets import DatasetDict

from hfasr.audio import write_audio
from hfasr.corpora.inspection.explorer import chosen_rows, write_explorer
from hfasr.corpora.inspection.summary import inspect
from hfasr.corpora.rows import build_rows, decoded
from hfasr.corpora.synthetic import ky
from hfasr.paths import archive_path, segment_path

ATTACK = "</script><script>document.title = 'broken in'</script><img src=x onerror=\"document.title = 'broken in'\"><!--"


def _tone(seconds: float) -> bytes:
    file = io.BytesIO()
    write_audio(file, 0.1 * np.sin(np.arange(int(16_000 * seconds)) / 5).astype(np.float32), format="WAV")
    return file.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("explorer")
    (folder / "clips & más #1").mkdir()
    for name in ("a*b%.wav", "plain.wav"):
        (folder / "clips & más #1" / name).write_bytes(_tone(0.7))
    (folder / "talk.wav").write_bytes(_tone(5.0))
    (folder / "x.tar").write_bytes(b"\0" * 512 + _tone(0.4))
    return folder


@pytest.fixture(scope="module")
def corpus(folder) -> DatasetDict:
    """1,200 usual rows whose files are not there, and some of every kind whose audio is."""
    rng = random.Random(3)
    texts = [ky.sentence(rng) for _ in range(1200)]

    def row(name, text, seconds, path, held=None, speaker="айгүл", source="radio"):
        blank = {"gender": None, "accent": None}
        return (
            {"id": name, "audio": {"path": str(path), "bytes": held}, "text": text, "duration": seconds, "speaker": speaker}
            | blank
            | {"source": source}
        )

    usual = [row(f"u{n}", text, len(text) / 13, f"/nowhere/u{n}.mp3", speaker=f"s{n % 7}", source="cv") for n, text in enumerate(texts)]
    clips = folder / "clips & más #1"
    odd = [
        row("a*b%", "мында 12 китеп бар эле", 1.6, clips / "a*b%.wav"),
        row("plain", "сeн кайда жүрөсүң азыр", 1.6, clips / "plain.wav"),
        row("segment", "узун жазуунун бир бөлүгү [шум]", 2.0, segment_path(folder / "talk.wav", 2, 4)),
        row("archived", "архивдеги \ufffdй сөздөр", 1.4, archive_path(folder / "x.tar", "a.wav", 512, len(_tone(0.4)))),
        row("bytes", "", 0.5, "b.wav", _tone(0.5)),
        row("noise", "\ufffd", 0.5, "c.wav", b"this is not audio"),
        row(ATTACK, ATTACK, 8.0, f"/nowhere/{ATTACK.replace('/', '')}.wav", speaker=ATTACK, source=ATTACK),
        row("rtl", "\u202eالعربية سلام 🎉 \u2028 \x00 сөз", 2.0, "/nowhere/rtl.wav"),
        row("huge", "өтө узун текст " * 20_000, 9.0, "/nowhere/huge.wav"),
    ]  # fmt: skip
    return decoded(DatasetDict(train=build_rows(usual[:1000]), test=build_rows(usual[1000:] + odd)))


@pytest.fixture(scope="module")
def inspection(corpus):
    return inspect(corpus, language="ky", headers=20)


@pytest.fixture(scope="module")
def explorer(corpus, inspection, folder) -> Path:
    before = set(folder.iterdir())
    path = write_explorer(folder / "explorer.html", corpus, inspection, title=f"Corpus {ATTACK}", details={"Path": ATTACK})
    assert set(folder.iterdir()) - before == {path}
    return path


@pytest.fixture
def page(browser, explorer):
    context = browser.new_context(viewport={"width": 1280, "height": 850})
    page = context.new_page()
    page.set_default_timeout(5000)
    page.complaints = []
    page.on("console", lambda message: page.complaints.append(message.text))
    page.on("pageerror", lambda error: page.complaints.append(str(error)))
    page.goto(explorer.as_uri())
    page.wait_for_selector("html[data-state=ready]")
    yield page
    assert page.complaints == []
    context.close()


def wait(page, condition: str) -> None:
    """Wait until a condition holds. Playwright's own wait evaluates text in the page, which the page forbids."""
    deadline = time.monotonic() + 10
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def count(page) -> int:
    """Return how many rows are in the list, by what the page says and by its grid."""
    told = page.locator("#count").inner_text()
    rows = int(re.match(r"[\d,]+", told)[0].replace(",", ""))
    assert page.locator("#list").get_attribute("aria-rowcount") == str(rows)
    return rows


def texts(page) -> list[str]:
    """Return the texts in sight, in their order on the page."""
    script = "rows => rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => row.querySelector('.text').textContent)"
    return page.locator(".row:not([hidden])").evaluate_all(script)


def find(page, text: str):
    page.fill("#query", text)
    assert count(page) == 1
    return page.locator(".row:not([hidden])")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "light"), (390, "dark")])
def test_shows_without_running_or_fetching_anything(browser, explorer, width, scheme):
    page = browser.new_context(viewport={"width": width, "height": 850}, color_scheme=scheme).new_page()
    page.set_default_timeout(5000)
    complaints, requests = [], []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    page.goto(explorer.as_uri())
    page.wait_for_selector("html[data-state=ready]")
    page.locator(".row:not([hidden])").first.click()
    page.fill("#query", "broken in")
    assert count(page) == 1
    page.locator(".row:not([hidden])").first.click()
    assert page.locator("#now .text").inner_text() == ATTACK
    assert page.title() == f"Corpus {ATTACK}"
    assert page.locator("img").count() == 0
    assert complaints == []
    assert requests == [explorer.as_uri()]
    page.locator("#side").evaluate("element => element.open = true")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(255, 255, 255)") == (scheme == "light")
    page.context.close()


def test_all_rows_are_there_but_few_have_elements(page, corpus):
    assert count(page) == len(corpus["train"]) + len(corpus["test"])
    assert page.locator(".row").count() < 40
    page.evaluate("scrollTo(0, document.body.scrollHeight)")
    wait(page, "[...document.querySelectorAll('.row:not([hidden])')].some(row => row.ariaRowIndex === '1209')")
    assert page.locator(".row").count() < 60


def test_suspicious_rows_come_first_and_say_why(page, inspection):
    first = page.locator(".row[aria-rowindex='1']")
    assert inspection.suspicious[0]["reasons"] == first.locator(".why").get_attribute("title").split("\n")
    first.click()
    assert page.locator("#now li").all_inner_texts() == inspection.suspicious[0]["reasons"]


def test_filters_agree_with_a_count_by_hand(page, corpus, inspection):
    page.select_option("#split", label="train (1,000)")
    assert count(page) == 1000
    page.select_option("#speaker", label="s3 (171)")
    assert count(page) == sum(speaker == "s3" for speaker in corpus["train"]["speaker"])
    page.get_by_role("button", name="Remove filter all").click()
    assert count(page) == 1209
    for name in ("digits", "broken"):
        page.click(f"[data-reason={name}]")
    assert count(page) == 3
    for name in ("digits", "broken"):
        assert page.locator(f"[data-reason={name}]").get_attribute("aria-pressed") == "true"
        page.click(f"[data-reason={name}]")
    page.locator("[data-symbol='ц']").click()
    assert count(page) == sum("ц" in text for split in corpus for text in corpus[split]["text"])
    page.keyboard.press("Escape")


def test_a_bar_of_a_histogram_is_a_filter(page, corpus):
    seconds = np.array([*corpus["train"]["duration"], *corpus["test"]["duration"]])
    chart = page.locator("[data-chart=duration] svg")
    box = chart.bounding_box()
    edges = json.loads(page.locator("#data").text_content())["charts"]["duration"]["edges"]
    bar = 8
    page.mouse.move(box["x"] + box["width"] * (bar + 0.5) / (len(edges) - 1), box["y"] + 20)
    page.mouse.down()
    page.mouse.up()
    rounded = np.round(seconds, 2)
    assert count(page) == np.count_nonzero((rounded >= edges[bar]) & (rounded < edges[bar + 1]))
    page.get_by_role("spinbutton", name="duration, least").fill("7.5")
    page.get_by_role("spinbutton", name="duration, most").fill("")
    page.get_by_role("spinbutton", name="duration, most").press("Enter")
    page.get_by_role("spinbutton", name="duration, least").press("Enter")
    wait(page, "document.querySelector('#filters').textContent.includes('7.5 s and more')")
    assert count(page) == np.count_nonzero(rounded >= 7.5)


def test_sorting_both_ways_from_the_headings(page, corpus):
    page.get_by_role("button", name="chars/s").click()
    assert texts(page)[0].startswith("өтө узун текст")
    page.get_by_role("button", name="Text", exact=True).click()
    everything = sorted([*corpus["train"]["text"], *corpus["test"]["text"]])
    assert texts(page)[1:3] == everything[1:3]
    page.select_option("#sort", label="Order of the corpus")
    assert texts(page)[:5] == list(corpus["train"]["text"][:5])


def test_search_is_by_text_and_id_in_any_case(page):
    page.fill("#query", "АРХИВДЕГИ")
    assert count(page) == 1
    page.fill("#query", "u77")
    assert count(page) == 11
    assert page.locator(".row:not([hidden])").first.locator("mark.hit").count() == 0
    page.fill("#query", "азыр")
    assert "азыр" in page.locator("mark.hit").all_inner_texts()
    page.fill("#query", "no such text anywhere")
    assert "No row matches" in page.locator("#list").inner_text()


@pytest.mark.parametrize(("text", "seconds"), [("мында 12 китеп", 0.7), ("кайда жүрөсүң азыр", 0.7), ("архивдеги", 0.4)])
def test_clips_play(page, text, seconds):
    """By a relative link with characters that need escaping, and from within the page for one in an archive."""
    assert page.locator("audio").count() == 0
    find(page, text).locator(".play").click()
    wait(page, "document.querySelector('audio').duration > 0")
    assert page.evaluate("document.querySelector('audio').duration") == pytest.approx(seconds, abs=0.1)
    assert page.evaluate("document.querySelector('audio').error") is None


def test_a_segment_begins_where_it_should(page):
    find(page, "узун жазуунун").locator(".play").click()
    wait(page, "document.querySelector('audio').currentTime >= 2")
    wait(page, "document.querySelector('audio').paused")
    assert page.evaluate("document.querySelector('audio').currentTime") == pytest.approx(4, abs=0.4)


def test_what_cannot_play_says_why(page):
    page.click("[data-reason=broken]")
    noise = page.locator(".row:not([hidden])", has_text="\ufffd").first
    assert page.locator(".play[disabled]").count() == 1
    page.locator(".row:not([hidden])", has=page.locator(".play[disabled]")).click()
    assert "not audio that libsndfile can read" in page.locator("#now .problem").inner_text()
    page.click("[data-reason=broken]")
    assert noise.count() >= 0
    find(page, "العربية").locator(".play").click()
    wait(page, "document.querySelector('#now .problem').textContent.includes('cannot be played')")
    page.complaints.clear()  # the browser itself says that there is no such file


def test_keyboard(page):
    page.locator("#list").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowDown")
    assert page.locator(".row[aria-selected=true]").get_attribute("aria-rowindex") == "2"
    active = page.locator("#list").get_attribute("aria-activedescendant")
    assert page.locator(f"#{active}").get_attribute("aria-rowindex") == "2"
    for _ in range(40):
        page.keyboard.press("ArrowDown")
    row = page.locator(".row[aria-selected=true]").bounding_box()
    assert row["y"] + row["height"] <= 850 - page.locator("#now").bounding_box()["height"] + 1
    page.keyboard.press("Escape")
    assert not page.locator("#now").is_visible()
    page.keyboard.press("/")
    page.keyboard.type("кайда жүрөсүң азыр")
    page.keyboard.press("Escape")
    page.keyboard.press(" ")
    wait(page, "document.querySelector('audio')?.currentTime > 0")
    page.keyboard.press(" ")


def test_odd_symbols_are_seen(page):
    row = find(page, "العربية")
    assert "U+202E" in row.locator("mark.code").all_inner_texts()
    assert row.locator(".text").get_attribute("dir") == "auto"
    row = find(page, "кайда жүрөсүң азыр")
    assert row.locator(".text mark:not(.hit)").all_inner_texts() == ["e"]


def test_long_texts_are_cut_and_a_large_corpus_is_sampled(corpus, inspection, tmp_path):
    path = write_explorer(tmp_path / "some.html", corpus, inspection, max_rows=100, embedded=0)
    page = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 300_000
    data = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])
    assert len(data["id"]) == len(data["marks"]) == len(data["split"]["codes"]) == 100
    assert {"bytes", "noise", "segment"} <= set(data["id"])
    assert "1,209" in page
    assert data["clips"] == {}
    assert max(map(len, data["text"])) <= 2001
    assert data["characters"][data["id"].index("huge")] == len("өтө узун текст ") * 20_000 - 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_selection_of_rows_in_another_order(corpus, tmp_path):
    rows = corpus["test"].select(range(208, 195, -1))
    some = DatasetDict(test=rows, train=corpus["train"].select([5, 3]))
    path = write_explorer(tmp_path / "some.html", some, inspect(some, language="ky"), embedded=1)
    data = json.loads(re.search(r'id="data">(.*?)</script>', path.read_text(encoding="utf-8"), re.DOTALL)[1])
    assert data["id"] == [*rows["id"], "u5", "u3"]
    assert data["text"][1:] == [*rows["text"][1:], *some["train"]["text"]]
    assert [data["id"][int(row)] for row in data["clips"]] == ["bytes"]
    link = data["link"]["values"][data["link"]["codes"][data["id"].index("u5")]]
    assert link == "file:///nowhere/*.mp3"


def test_chosen_rows_keep_room_for_the_usual(inspection):
    places = chosen_rows(inspection.suspicion, 10)
    assert len(set(places.tolist())) == 10
    assert np.count_nonzero(inspection.suspicion.marks[places]) in (5, 6)
    assert set(inspection.suspicion.order[:5].tolist()) <= set(places.tolist())


def test_bad_arguments_are_named(corpus, inspection, tmp_path):
    with pytest.raises(ValueError, match="another corpus"):
        write_explorer(tmp_path / "e.html", DatasetDict(train=corpus["train"]), inspection)
    with pytest.raises(ValueError, match="max_rows is 0"):
        write_explorer(tmp_path / "e.html", corpus, inspection, max_rows=0)
    assert list(tmp_path.iterdir()) == []
