"""The page of mode=report in a real browser: it loads in peace and without the network, and everything on it works."""

import json
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from command import call
from report_folders import copy_run, sweep

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium: pip install -e '.[dev]'")
if not shutil.which("chromium") or not shutil.which("chromedriver"):
    pytest.skip("needs chromium and chromedriver (Debian: chromium, chromium-driver)", allow_module_level=True)

FLAGS = "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking"
FLAGS += " --disable-component-update --disable-sync"
HOSTILE = "</script><img src=x onerror=window.hacked=1>"
MANY = 60


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for flag in (*FLAGS.split(), f"--user-data-dir={tmp_path_factory.mktemp('browser')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def report_html(fitted, tmp_path_factory) -> Path:
    """The report of `sweep`, with curves of 300 steps, a run with a hostile name, and another task of many runs."""
    folder = tmp_path_factory.mktemp("page")
    runs = sweep(fitted, folder)
    hostile = {"choices": {"model": HOSTILE, "data": HOSTILE}, "overrides": [HOSTILE], "error": HOSTILE}
    copy_run(fitted, runs / "<img src=x onerror=window.hacked=1>", **hostile)
    for place, path in enumerate(sorted(runs.rglob("metrics.csv"))):
        rows = [f"{step},{math.exp(-step / 50) + place},{'' if step % 10 else place}" for step in range(1, 301)]
        path.write_text("\n".join(["step,train/loss,val/mse", *rows]) + "\n")
    for number in range(MANY):
        many = {"choices": {"task": "z_other"}, "metrics": {"test/mse": number / 7}}
        copy_run(fitted, runs / "z_other" / f"itransformer-{number}", number, **many)
    outcome = call(folder, "mode=report", "path=outputs")
    assert outcome.code == 0, outcome.err
    return runs / "report.html"


@pytest.fixture
def page(browser, report_html) -> Iterator:
    """The page just opened, in a window of 1280 x 900."""
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    resize(browser, 1280)
    browser.get("about:blank")
    browser.get_log("browser"), browser.get_log("performance")
    browser.get(report_html.as_uri())
    yield browser
    assert browser.get_log("browser") == []
    assert browser.execute_script("return window.hacked") is None


def resize(browser, width: int) -> None:
    shape = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)


def all_of(page, selector: str) -> list:
    return page.find_elements("css selector", selector)


def one(page, selector: str):
    return page.find_element("css selector", selector)


def choose(page, name: str, value: str) -> None:
    """Chooses an option of a select as a user does."""
    one(page, f"#{name} option[value='{value}']").click()


def column(page, name: str) -> list[str]:
    """The texts of a column of the leaderboard."""
    names = [cell.text.rstrip(" ↑↓") for cell in all_of(page, "#leaderboard thead th")]
    place = names.index(name) + 1
    return [cell.text for cell in all_of(page, f"#leaderboard tbody tr > :nth-child({place})")]


def heading(page, name: str):
    return next(b for b in all_of(page, "#leaderboard thead button") if b.text.rstrip(" ↑↓") == name)


def wait_for(page, condition) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(page, 5, 0.05).until(lambda _: condition())


def test_it_loads_without_errors_and_without_the_network(page, report_html):
    assert page.title == "Runs below outputs"
    assert one(page, "#count").text == "14 of 14 runs"
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url for url in asked if not url.startswith("data:")} == {report_html.as_uri()}


def test_a_click_on_a_heading_sorts_by_size_and_missing_values_stay_last(page):
    heading(page, "test/mse").click()
    assert heading(page, "test/mse").find_element("xpath", "..").get_attribute("aria-sort") == "ascending"
    rising = column(page, "test/mse")
    assert rising[-1] == "" and [float(v) for v in rising[:-1]] == sorted(float(v) for v in rising[:-1])
    assert rising[:2] == ["0.1000", "0.1100"] and "1.020" in rising[-3:]
    heading(page, "test/mse").click()
    assert heading(page, "test/mse").find_element("xpath", "..").get_attribute("aria-sort") == "descending"
    falling = column(page, "test/mse")
    assert falling[-1] == "" and falling[:-1] == rising[:-1][::-1]
    assert len(all_of(page, "th[aria-sort=ascending], th[aria-sort=descending]")) == 1


def test_headings_and_runs_answer_the_keyboard(page):
    heading(page, "model").send_keys("\ue007")
    assert column(page, "model") == sorted(column(page, "model"), key=str.lower)
    assert page.switch_to.active_element.text.startswith("model")
    opener = all_of(page, ".opener")[1]
    opener.send_keys("\ue007")
    assert opener.get_attribute("aria-expanded") == "true" and all_of(page, ".details")


def test_text_and_selects_filter_everything(page):
    one(page, "#text").send_keys("lr=0.01 dlinear")
    wait_for(page, lambda: one(page, "#count").text == "3 of 14 runs")
    assert set(column(page, "model")) == {"dlinear"}
    assert len(all_of(page, "#cost circle.dot")) == len(all_of(page, "polyline.curve")) == 3
    one(page, "#text").clear()
    one(page, "#text").send_keys(" ")
    wait_for(page, lambda: one(page, "#count").text == "14 of 14 runs")
    choose(page, "status", "failed")
    assert column(page, "model") == ["s_mamba"]
    choose(page, "status", "")
    choose(page, "model", "itransformer")
    assert one(page, "#count").text == "6 of 14 runs"
    choose(page, "data-filter", "csv (series.csv)")
    assert one(page, "#count").text == "6 of 14 runs"


def test_seeds_are_grouped_on_demand(page):
    one(page, "#grouped").click()
    assert len(all_of(page, "#leaderboard tbody tr")) == 6
    place = column(page, "run").index("itransformer-10")
    assert column(page, "test/mse")[place] == "0.1100 ± 0.010"
    assert column(page, "n")[place] == "3" and column(page, "status")[place] == "done \u00d7 3"


def test_what_cannot_be_compared_is_flagged(page):
    remarks = dict(zip(column(page, "run"), column(page, "remarks"), strict=True))
    assert remarks["itransformer-10"] == "not the published set-up"
    assert remarks["s_mamba-bad"] == "other code" and remarks["dlinear-30"] == ""
    published = one(page, "#published-table tbody tr").text
    assert "0.1100 ± 0.010 3 0.1000 +10.0 % not the published set-up table 1" in " ".join(published.split())


def test_a_run_opens_to_files_that_exist_and_figures_that_load(page):
    assert not all_of(page, "img")
    next(b for b in all_of(page, ".opener") if b.text == "dlinear-30").click()
    links = [link.get_attribute("href") for link in all_of(page, ".details a")]
    files = [Path(unquote(urlparse(link).path)) for link in links]
    assert {"config.yaml", "results.json", "metrics.csv"} <= {file.name for file in files if file.is_file()}
    images = all_of(page, ".details img")
    assert len(images) == 3 and all(image.get_attribute("loading") == "lazy" for image in images)
    wait_for(page, lambda: all(image.get_property("naturalWidth") > 200 for image in images))


def test_curves_are_drawn_and_can_be_chosen(page):
    assert [o.text for o in all_of(page, "#curve-metric option")] == ["val/mse", "train/loss"]
    choose(page, "curve-metric", "train/loss")
    assert len(all_of(page, "polyline.curve")) == 6
    points = one(page, "polyline.curve").get_attribute("points").split()
    assert 150 < len(points) <= 200 and len({point.split(",")[1] for point in points}) > 20
    all_of(page, "#curve-picker input")[0].click()
    assert len(all_of(page, "polyline.curve")) == 5
    one(page, "#curve-none").click()
    assert not all_of(page, "polyline.curve")
    one(page, "#curve-best").click()
    one(page, "#curve-log").click()
    assert len(all_of(page, "polyline.curve")) == 6 and not page.find_elements("xpath", "//*[contains(@points, 'NaN')]")


def test_heat_map_and_parallel_coordinates_show_the_sweep(page):
    choose(page, "data-filter", "csv (series.csv)")
    assert [o.text for o in all_of(page, "#heat-rows option")][:2] == ["optim.lr", "model"]
    cells = [
        [cell.text for cell in row.find_elements("css selector", "th, td")] for row in all_of(page, "#heat-map tr")
    ]
    assert cells == [
        ["optim.lr \\ model", "dlinear", "itransformer"],
        ["0.001", "0.3100", "0.1100"],
        ["0.01", "1.010", "0.2100"],
    ]
    good = [
        float(page.execute_script("return arguments[0].style.getPropertyValue('--good')", cell))
        for cell in all_of(page, "td.heat")
    ]
    assert good[1] == 1 and good[2] == 0
    assert len(all_of(page, "polyline.thread")) == 12 and len(all_of(page, "svg.parallel line.axis")) == 3
    choose(page, "heat-columns", "seed")
    assert len(all_of(page, "td.heat")) == 6
    choose(page, "sweep-metric", "1")
    assert all_of(page, "svg.parallel text.label")[-1].text == "test/mae"


def test_cost_stands_against_quality(page):
    choose(page, "data-filter", "csv (series.csv)")
    assert len(all_of(page, "#cost circle.dot")) == 12
    assert [o.get_attribute("value") for o in all_of(page, "#cost-x option")] == [
        "seconds",
        "memory",
        "params",
        "flops",
    ]
    assert len(one(page, "polyline.front").get_attribute("points").split()) == 1
    before = [dot.get_attribute("cx") for dot in all_of(page, "#cost circle.dot")]
    choose(page, "cost-x", "memory")
    assert [dot.get_attribute("cx") for dot in all_of(page, "#cost circle.dot")] != before


def test_many_runs_come_in_pages(page):
    choose(page, "task", "z_other")
    assert len(all_of(page, "#leaderboard tbody tr")) == 50
    assert f"1\u201350 of {MANY}" in one(page, "#pager").text
    all_of(page, "#pager button")[1].click()
    assert len(all_of(page, "#leaderboard tbody tr")) == MANY - 50
    heading(page, "test/mse").click()
    heading(page, "test/mse").click()
    assert column(page, "test/mse")[0] == "8.429"
    one(page, "#pager option[value='0']").click()
    assert len(all_of(page, "#leaderboard tbody tr")) == MANY


@pytest.mark.parametrize("width", [320, 375, 768, 1280])
def test_only_tables_scroll_sideways(page, width):
    resize(page, width)
    page.refresh()
    all_of(page, ".opener")[0].click()
    assert page.execute_script("return document.documentElement.scrollWidth") <= width
    assert page.execute_script("return innerWidth") == width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_by_day_and_in_the_dark(page, scheme):
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})
    ground = luminance(page, "body", "background-color")
    assert ground < 0.02 if scheme == "dark" else ground > 0.95
    for selector, least in (("body", 7), (".muted", 4.5), (".status-failed", 4.5), (".opener", 4.5), ("thead th", 4.5)):
        pair = sorted((luminance(page, selector, "color"), ground))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= least, selector


def luminance(page, selector: str, which: str) -> float:
    """Relative luminance of a colour, as WCAG defines it."""
    text = one(page, selector).value_of_css_property(which)
    parts = [float(part) / 255 for part in text.partition("(")[2].rstrip(")").split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def test_print_leaves_the_controls_out(page):
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert not one(page, "#filters").is_displayed() and not one(page, "nav").is_displayed()
    assert one(page, "#leaderboard table").is_displayed()


def test_hostile_names_are_shown_as_they_are(page):
    assert HOSTILE in column(page, "model") and f"{HOSTILE} (series.csv)" in column(page, "data")
    next(b for b in all_of(page, ".opener") if b.text == "<img src=x onerror=window.hacked=1>").click()
    assert HOSTILE in one(page, ".details").text


def test_the_content_policy_stops_scripts_that_are_not_the_page_s_own(page):
    page.execute_script(
        "const script = document.createElement('script');"
        "script.textContent = 'window.hacked = 1'; document.body.append(script);"
    )
    [refusal] = page.get_log("browser")
    assert "Content Security Policy" in refusal["message"]
