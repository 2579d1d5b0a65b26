"""The playground through gradio_client, and in a browser; skipped where these are not installed."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from types import SimpleNamespace
from urllib.request import urlopen

import pytest
from embedded_playground import EDIT, embedded_playground
from running import free_port

gradio = pytest.importorskip("gradio", reason="needs gradio: pip install 'hf-ftedit[playground]'")
pytestmark = pytest.mark.usefixtures("few_drift_prompts")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
QUESTION, NEW, OLD = EDIT["prompt"], EDIT["target_new"], "William Shakespeare"


@pytest.fixture(scope="module")
def address():
    """Address of a playground with the embedded model."""
    from hf_ftedit.playground import launch

    where = {"host": "127.0.0.1", "port": int(free_port()), "share": False, "block": False}
    page = launch(embedded_playground(), "hf_ftedit/embedded", **where)
    yield page.local_url
    page.close()


def client(address):
    from gradio_client import Client

    return Client(address, verbose=False, analytics_enabled=False)


def train(visitor, *more):
    job = visitor.submit(
        {"headers": [], "data": []}, QUESTION, NEW, EDIT["subject"], "", *more or [""], api_name="/train"
    )
    return job.result(), job.outputs()


def test_two_visitors_do_not_see_each_others_edits(address):
    first, second = client(address), client(address)
    (status, exam, active, *_), steps = train(first)
    assert status.startswith("<b>Done.</b>") and any("Steps: 1 of 2, " in step[0] for step in steps)
    assert f"✓ edits | {QUESTION} | {OLD} | {NEW} |" in exam["value"] and "| efficacy |" in exam["value"]
    assert first.predict(QUESTION, api_name="/ask") == (OLD, NEW)
    assert second.predict(QUESTION, api_name="/ask") == (OLD, OLD)
    with pytest.raises(Exception, match="to take all of them back, switch the adapter off"):
        first.predict(*active["value"], [], api_name="/again")


def test_the_end_stops_a_training_and_deletes_downloads(monkeypatch):
    from hf_ftedit.playground import launch

    monkeypatch.setenv("GRADIO_TEMP_DIR", "")  # which is set
    ours, pages = embedded_playground(), []

    def stopped(page):
        pages.append(page)
        visitor = client(page.local_url)
        train(visitor)
        assert [*Path(ours.downloads.name).rglob("edits-1.zip")]
        visitor.submit({"headers": [], "data": []}, QUESTION, NEW, *[""] * 3, api_name="/train")
        while not ours._training.locked():
            time.sleep(0.01)
        raise KeyboardInterrupt

    monkeypatch.setattr(gradio.Blocks, "block_thread", stopped)
    with pytest.raises(KeyboardInterrupt):
        launch(ours, "hf_ftedit/embedded", host="127.0.0.1", port=int(free_port()), share=False)
    assert not ours._training.locked() and not Path(ours.downloads.name).exists()
    pages[0].close()


def test_a_table_that_was_dropped_may_have_fewer_columns():
    from hf_ftedit.playground.page import _Page

    rows, visitor = [[QUESTION, NEW], [""], []], SimpleNamespace(session_hash="mine")
    table, *fields = _Page(embedded_playground()).untrained(visitor, rows, *[""] * 5)
    assert table.value["data"] == [[QUESTION, NEW]] and fields == [""] * 5


def test_a_program_may_send_numbers_and_nothing_in_place_of_texts(address):
    from hf_ftedit.playground.page import _fact

    assert _fact(1, 2.5, None, "", ["x"]) == {"prompt": "1", "target_new": "2.5", "neighborhood_prompts": ["['x']"]}
    rows = {"headers": [], "data": [[1, None]]}
    with pytest.raises(Exception, match="a fact needs a question and a new answer; fill both in"):
        client(address).predict(rows, *[""] * 5, api_name="/train")


@pytest.mark.parametrize("name", ["/etc", "../", "hf_ftedit/assets", "file:///etc/passwd", "", None, 3])
def test_no_folder_of_the_machine_is_opened(address, name, monkeypatch):
    monkeypatch.chdir(Path(__file__).parents[2])
    visitor = client(address)
    with pytest.raises(Exception, match="is no Hub id such as user/name; no folder of this machine is opened"):
        visitor.predict(name, api_name="/load")


def test_no_file_of_the_machine_is_served(address):
    for path in (__file__, "/etc/passwd", Path(__file__).parents[2] / "pyproject.toml"):
        with pytest.raises(Exception, match="403|404"):
            urlopen(f"{address}gradio_api/file={path}", timeout=600)


@pytest.fixture
def browser():
    """Chromium without a window."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install playwright")
    if CHROMIUM is None:
        pytest.skip("needs Chromium, such as Debian's package chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.mark.parametrize("width", [1280, 400])
def test_type_train_and_ask_in_a_browser(address, browser, width):
    tab = browser.new_page(viewport={"width": width, "height": 900})
    tab.set_default_timeout(300_000)
    tab.goto(address)
    prompt = QUESTION if width > 400 else QUESTION.replace(EDIT["subject"], "{}")
    for field, text in (("prompt", prompt), ("target", NEW), ("subject", EDIT["subject"])):
        tab.locator(f"#{field} textarea").fill(text)
    tab.get_by_text("For the exam only").click()
    tab.get_by_label("The same in other words").fill("Hamlet was written by")
    tab.get_by_label("A similar question").fill("The author of Faust is")
    tab.get_by_text("Add to list").click()
    tab.get_by_text("Other wording").wait_for()
    last = tab.locator("#facts th").filter(has_text="Neighbor").first.bounding_box()
    table = tab.locator("#facts").bounding_box()
    assert last["x"] + last["width"] <= table["x"] + table["width"]  # the last column is not cut
    look(tab, f"{width}-typed")
    tab.locator("#train").click()
    tab.locator("#status progress").first.wait_for()
    look(tab, f"{width}-training")
    tab.locator("#status b").wait_for()
    exam = tab.locator("#exam").inner_text()
    assert NEW in exam and "neighbors" in exam and tab.locator("#active input").is_checked()
    # What is learnt is not trained again by the next click.
    tab.locator("#facts").wait_for(state="hidden")
    assert tab.locator("#prompt textarea").input_value() == ""
    tab.locator("#question textarea").fill(QUESTION)
    tab.locator("#question button").click()
    tab.wait_for_function("name => document.querySelector('#now textarea').value == name", arg=NEW)
    assert tab.locator("#before textarea").input_value() == OLD
    look(tab, f"{width}-asked")
    assert tab.evaluate("document.documentElement.scrollWidth") <= width  # nothing hangs over the edge
    for _ in range(3):  # faster than an adapter is loaded
        tab.locator("#active input").click()
    tab.locator("#question button").click()
    tab.wait_for_function("name => document.querySelector('#now textarea').value == name", arg=OLD)


def look(tab, name):
    """Write a picture of the page, where a folder for pictures is named."""
    if folder := os.environ.get("HF_FTEDIT_SCREENSHOTS"):
        tab.wait_for_timeout(500)
        tab.screenshot(path=f"{folder}/{name}.png", full_page=True)
