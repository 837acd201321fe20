"""The reports in a browser: they work, and ask for nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from beam_jobs.report.compare_page import compare_page
from beam_jobs.report.evaluation_page import evaluation_page
from beam_jobs.report.run_page import run_page
from tests.report_contents import EVIL_CLASS, compare, evaluation, run

pytestmark = pytest.mark.browser

Show = Callable[..., Any]


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Opens a page in a window of a size; at the end nothing may have been logged or asked for."""

    def opened(page: bytes, width: int = 1280, *, dark: bool = False) -> Any:
        path = tmp_path / "report.html"
        path.write_bytes(page)
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": scheme})
        for kind in ("browser", "performance"):
            browser.get_log(kind)
        browser.get(path.as_uri())
        return browser

    yield opened
    assert browser.get_log("browser") == []
    messages = (json.loads(entry["message"])["message"] for entry in browser.get_log("performance"))
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert [url.rsplit("/", 1)[-1] for url in asked if not url.startswith("data:")] == ["report.html"]


def heads(browser: Any, table: str) -> list[str]:
    """The names of the rows that are shown."""
    rows = "[...document.querySelectorAll(arguments[0] + ' tbody tr')].filter(row => !row.hidden)"
    script = f"return {rows}.map(row => row.cells[0].textContent)"
    return list(browser.execute_script(script, table))


def click(browser: Any, selector: str, number: int = 0) -> None:
    browser.execute_script("document.querySelectorAll(arguments[0])[arguments[1]].click()", selector, number)


@pytest.mark.parametrize("page", [evaluation_page(evaluation()), run_page(run()), compare_page(compare())])
@pytest.mark.parametrize("width", [1280, 360])
def test_page_fits_its_window_and_logs_nothing(show: Show, page: bytes, width: int) -> None:
    browser = show(page, width)
    script = "const e = document.documentElement; return [e.scrollWidth, e.clientWidth, innerWidth]"
    needed, given, window = browser.execute_script(script)
    assert needed == given <= window == width
    assert browser.execute_script("return [...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.execute_script("return document.querySelectorAll('script').length") == 1


def test_columns_sort_both_ways_and_say_so(show: Show) -> None:
    browser = show(evaluation_page(evaluation()))
    column = "#classes th:nth-child(2)"
    direction = "return document.querySelector(arguments[0]).getAttribute('aria-sort')"
    before = heads(browser, "#classes")
    assert browser.execute_script(direction, column) == "descending"
    assert before[-1] == "no truths"
    click(browser, f"{column} button")
    assert browser.execute_script(direction, column) == "ascending"
    after = heads(browser, "#classes")
    # What has no value stays at the end.
    assert after == [*reversed(before[:-1]), "no truths"]
    click(browser, "#classes th:nth-child(1) button")
    names = [name for name in heads(browser, "#classes") if name.isascii() and name[0].isalpha()]
    assert names == ["dog", "no truths", "person"]
    assert browser.execute_script(direction, column) == "none"


def test_keyboard_alone_sorts_and_skips(show: Show) -> None:
    from selenium.webdriver.common.keys import Keys

    browser = show(evaluation_page(evaluation()))
    browser.find_element("tag name", "body").send_keys(Keys.TAB)
    assert browser.switch_to.active_element.get_attribute("class") == "skip"
    assert browser.switch_to.active_element.location["x"] >= 0
    button = browser.find_element("css selector", "#classes th:nth-child(2) button")
    button.send_keys(Keys.ENTER)
    assert heads(browser, "#classes")[-1] == "no truths"
    assert browser.execute_script("return getComputedStyle(arguments[0]).outlineStyle", button) == "solid"


def test_filter_hides_rows_and_pictures_of_other_classes(show: Show) -> None:
    browser = show(evaluation_page(evaluation()))
    field = browser.find_element("id", "filter")
    field.send_keys("<SCRIPT")
    assert heads(browser, "#classes") == [EVIL_CLASS]
    assert "of" in browser.execute_script("return document.getElementById('matches').textContent")
    visible = "return [...document.querySelectorAll('.gallery figure')].filter(f => !f.hidden).length"
    assert browser.execute_script(visible) == 1
    field.send_keys("\ue00c")  # Escape
    assert len(heads(browser, "#classes")) == len(evaluation().categories)
    assert browser.execute_script(visible) == 2
    click(browser, ".choice button", 2)
    assert browser.execute_script(visible) == 3


def test_curve_of_a_class_can_be_chosen(show: Show) -> None:
    browser = show(evaluation_page(evaluation()))
    shown = "return document.querySelector('#curve .line').getAttribute('d')"
    choose = (
        "const s = document.getElementById('curve-class'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))"
    )
    mean = browser.execute_script(shown)
    browser.execute_script(choose, "dog")
    assert browser.execute_script(shown) != mean
    browser.execute_script(choose, "")
    assert browser.execute_script(shown) == mean


def test_dark_is_dark_and_print_hides_the_controls(show: Show) -> None:
    background = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).map(Number)"
    page = evaluation_page(evaluation())
    assert max(show(page, dark=True).execute_script(background)) < 50
    browser = show(page)
    assert min(browser.execute_script(background)) > 200
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert browser.execute_script("return getComputedStyle(document.querySelector('.toolbar')).display") == "none"


def test_a_thousand_classes_sort_and_filter(show: Show) -> None:
    browser = show(evaluation_page(evaluation(tuple(f"class {i}" for i in range(1203)), gallery=())))
    before = heads(browser, "#classes")
    click(browser, "#classes th:nth-child(1) button")
    after = heads(browser, "#classes")
    assert len(after) == 1203
    assert sorted(after) == sorted(before)
    assert after != before
    browser.find_element("id", "filter").send_keys("class 120")
    assert sorted(heads(browser, "#classes")) == ["class 120", "class 1200", "class 1201", "class 1202"]
