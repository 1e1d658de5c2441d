"""The report in a real browser: Chromium without a window, driven by selenium, its network traffic recorded."""

import csv
import io
import json
import os
import shutil
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import report_case

from pipeline import images
from pipeline.machinery import files

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CHROMEDRIVER = shutil.which("chromedriver")
if not (CHROMIUM and CHROMEDRIVER) and not os.environ.get("REQUIRE_BROWSER"):
    pytest.skip("no chromium with chromedriver (apt install chromium chromium-driver)", allow_module_level=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A root where stages 04 to 06 have run; one correction was made before."""
    root = tmp_path_factory.mktemp("root")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("IMAGE_CLUSTER_ROOT", str(root))
        names = report_case.make(root)
        report_case.run_all(root)
        columns = ["image_a", "image_b", report_case.RELATION]
        files.write_csv(root / "data/d/corrections.csv", columns, [(names[0], "구두, alt.jpg", "different")])
        done = report_case.run(root, "06.visualization.py")
        assert done.returncode == 0, done.stderr
    return root


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """Chromium with logs of its console and of every request."""
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    assert CHROMIUM and CHROMEDRIVER, "REQUIRE_BROWSER is set, but there is no chromium with chromedriver"
    folder = tmp_path_factory.mktemp("browser")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for switch in ("headless=new", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
                   "disable-background-networking", "disable-component-update", "disable-dev-shm-usage",
                   "window-size=1300,900", f"user-data-dir={folder / 'profile'}"):  # fmt: skip
        options.add_argument(f"--{switch}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(CHROMEDRIVER))
    driver.downloads = folder / "downloads"
    driver.downloads.mkdir()
    behaviour = {"behavior": "allow", "downloadPath": str(driver.downloads)}
    driver.execute_cdp_cmd("Browser.setDownloadBehavior", behaviour)
    yield driver
    driver.quit()


@pytest.fixture
def page(browser, finished):
    """The report, freshly opened, with no marks of an earlier test."""
    for log in ("browser", "performance"):
        browser.get_log(log)
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    browser.get((finished / "result/d/report.html").as_uri())
    browser.execute_script("localStorage.clear()")
    browser.get((finished / "result/d/report.html").as_uri())
    browser.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    return browser


def until(page, script: str, seconds: float = 15):
    """Wait until a script returns something true, and return it."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if value := page.execute_script(f"return {script}"):
            return value
        time.sleep(0.05)
    raise AssertionError(f"not true within {seconds} s: {script}")


def find(page, selector: str):
    return page.find_element("css selector", selector)


def press(page, keys: str) -> None:
    """Type on whatever has the focus."""
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(page).send_keys(keys).perform()


def clusters_of(root: Path) -> dict[str, int]:
    rows = files.read_csv(root / "data/d/clusters.csv", ["image", "cluster"], "04")
    return {row["image"]: int(row["cluster"]) for row in rows}


def data_of(page) -> dict:
    return json.loads(page.execute_script("return document.getElementById('data').textContent"))


def in_view(page, selector: str) -> None:
    page.execute_script("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)


# ---- quiet -----------------------------------------------------------------------------------------


def test_opens_without_errors_and_asks_the_network_for_nothing(page):
    until(page, "document.querySelectorAll('.card').length")
    for section in ("map", "clusters", "review", "evaluation", "run"):
        page.execute_script("document.getElementById(arguments[0]).scrollIntoView()", section)
        time.sleep(0.2)
    assert [entry for entry in page.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")] == []
    messages = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    asked = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert {url.split(":")[0] for url in asked} <= {"file", "blob", "data"}
    assert {url for url in asked if url.startswith("file:")} == {page.current_url}
    assert any(url.startswith("blob:") for url in asked)  # the photographs


def test_the_policy_stops_what_a_page_might_try(page):
    page.set_script_timeout(10)
    tried = page.execute_async_script(
        """const done = arguments[0];
        fetch("https://example.com/").then(() => done("fetched"), () => {
          const image = new Image(); image.onload = () => done("loaded"); image.onerror = () => done("refused");
          image.src = "https://example.com/x.png"; });"""
    )
    assert tried == "refused"


def test_hostile_file_names_do_nothing(page):
    page.execute_script("window.alerts = 0; window.alert = () => { window.alerts++; }")
    find(page, "#search").send_keys("<")
    until(page, "document.querySelectorAll('#found button').length")
    for name in report_case.HOSTILE:
        page.execute_script("document.getElementById('search').value = arguments[0]", name)
        page.execute_script("document.getElementById('search').dispatchEvent(new Event('input'))")
        assert name in until(page, "document.querySelector('#found .name')?.textContent")
        page.execute_script("document.querySelector('#found button').click()")
        assert until(page, "document.querySelector('#detail h2')?.textContent") == name
        page.execute_script("document.getElementById('detail').close()")
    time.sleep(0.3)
    assert page.execute_script("return [window.alerts, window.hacked ?? null]") == [0, None]
    assert page.execute_script("return document.querySelectorAll('img, b').length") == 0


# ---- photographs -----------------------------------------------------------------------------------


def test_every_photograph_shows_its_own_picture(page):
    """The place of a photograph in its sprite is measured: its middle has the colour of the drawn box."""
    in_view(page, "#cards")
    until(page, "document.querySelectorAll('#cards .photo[style*=\"blob:\"]').length > 20")
    measured = page.execute_async_script(
        """const done = arguments[0];
        const all = [...document.querySelectorAll('#cards .photo')];
        const photos = all.filter(p => p.style.backgroundImage).slice(0, 40);
        Promise.all(photos.map(photo => new Promise(resolve => {
          const image = new Image();
          image.onload = () => {
            const side = 64, canvas = document.createElement('canvas'); canvas.width = canvas.height = side;
            const [w, h] = photo.style.backgroundSize.split(' ').map(v => parseFloat(v) / 100 * side);
            const [x, y] = photo.style.backgroundPosition.split(' ').map(v => parseFloat(v) / 100);
            const context = canvas.getContext('2d');
            context.drawImage(image, -x * (w - side), -y * (h - side), w, h);
            const pixels = context.getImageData(0, 0, side, side).data; let best = [255, 255, 255], least = 765;
            for (let i = 0; i < pixels.length; i += 4) { const sum = pixels[i] + pixels[i+1] + pixels[i+2];
              if (sum < least) { least = sum; best = [pixels[i], pixels[i+1], pixels[i+2]]; } }
            resolve([+photo.dataset.image, best]);
          };
          image.src = photo.style.backgroundImage.slice(5, -2);
        }))).then(done);"""
    )
    assert len(measured) > 20
    names, seen = data_of(page)["names"], set()
    root = Path(page.current_url.removeprefix("file://")).parents[2]
    for image, colour in measured:
        path = root / "raw_img/d" / names[image]
        pixels = images.read_bgr(path).reshape(-1, 3)[:, ::-1].astype(int)
        expected = pixels[pixels.sum(axis=1).argmin()]
        assert np.abs(expected - colour).max() < 60, names[image]
        seen.add(tuple(expected // 64))
    assert len(seen) >= 2


def test_clusters_are_those_of_clusters_csv_medoid_first(page, finished):
    expected = Counter(clusters_of(finished).values())
    data = data_of(page)
    in_view(page, "#cards")
    until(page, "document.querySelector('.card header')")
    for cluster, size in expected.items():
        page.execute_script("document.getElementById(arguments[0]).scrollIntoView()", f"cluster-{cluster}")
        until(page, f"document.querySelector('#cluster-{cluster} header')")
        card = find(page, f"#cluster-{cluster}")
        confidence = np.mean([c for c, k in zip(data["confidence"], data["cluster"], strict=True) if k == cluster])
        assert f"{size} photograph" in card.text
        assert f"confidence {np.floor(100 * confidence + 0.5):.0f} %" in card.text
        shown = page.execute_script(
            "return [...arguments[0].querySelectorAll('.photo')].map(p => +p.dataset.image)", card
        )
        assert {data["cluster"][image] for image in shown} == {cluster} and len(shown) == min(size, 24)
        medoid = next(row["medoid"] for row in data["clusters"] if row["id"] == cluster)
        assert shown[0] == medoid


def test_clusters_can_be_sorted(page):
    def order(by: str) -> list[int]:
        page.execute_script(
            "const s = document.getElementById('sort'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
            by,
        )
        return page.execute_script("return [...document.querySelectorAll('.card')].map(c => +c.dataset.cluster)")

    rows = {row["id"]: row for row in data_of(page)["clusters"]}
    sizes = [rows[c]["size"] for c in order("size")]
    assert sizes == sorted(sizes, reverse=True)
    doubts = [rows[c]["doubt"] for c in order("doubt")]
    assert doubts == pytest.approx(sorted(doubts, reverse=True))
    sure = [rows[c]["confidence"] for c in order("sure")]
    assert sure == pytest.approx(sorted(sure))
    assert order("id") == sorted(rows)


# ---- the map ---------------------------------------------------------------------------------------


def click_on_unit(page, unit: int) -> None:
    """Click with the mouse where the page draws a unit of a map that is not zoomed."""
    from selenium.webdriver.common.action_chains import ActionChains

    in_view(page, "#canvas")
    time.sleep(0.2)
    x, y = page.execute_script(
        """const map = JSON.parse(document.getElementById('data').textContent).map, c = arguments[0];
        const xs = map.centre.map(p => p[0]), ys = map.centre.map(p => p[1]);
        const low = [Math.min(...xs) - 0.6, Math.min(...ys) - 0.6];
        const high = [Math.max(...xs) + 0.6, Math.max(...ys) + 0.6];
        const box = document.getElementById('canvas').getBoundingClientRect();
        const scale = Math.min(box.width / (high[0] - low[0]), box.height / (high[1] - low[1]));
        return [0, 1].map(i => (map.centre[c][i] - (low[i] + high[i]) / 2) * scale);""",
        unit,
    )
    ActionChains(page).move_to_element_with_offset(find(page, "#canvas"), round(x), round(y)).click().perform()


def test_a_click_on_the_map_shows_the_photographs_of_the_place_and_of_its_cluster(page, finished):
    data = data_of(page)
    unit = max(range(len(data["map"]["hits"])), key=lambda u: data["map"]["hits"][u])
    click_on_unit(page, unit)
    until(page, "document.querySelectorAll('#side .photo').length")
    shown = page.execute_script("return [...document.querySelectorAll('#side .photo')].map(p => +p.dataset.image)")
    rows = files.read_csv(finished / "data/d/clusters.csv", ["image", "unit_row", "unit_col"], "04")
    here = {
        i for i, row in enumerate(rows) if int(row["unit_row"]) * data["map"]["cols"] + int(row["unit_col"]) == unit
    }
    assert set(shown) == here
    assert f"{len(here)} photograph" in find(page, "#map-status").text
    find(page, "#side .whole").click()
    cluster = data["map"]["cluster"][unit]
    shown = page.execute_script("return [...document.querySelectorAll('#side .photo')].map(p => +p.dataset.image)")
    assert set(shown) == {i for i, c in enumerate(data["cluster"]) if c == cluster}


def test_the_map_works_by_keyboard(page):
    from selenium.webdriver.common.keys import Keys

    page.execute_script("document.getElementById('canvas').focus()")
    press(page, Keys.ARROW_RIGHT)
    first = find(page, "#map-status").text
    press(page, Keys.ARROW_RIGHT)
    second = find(page, "#map-status").text
    assert first.startswith("Place 0, 0") and second.startswith("Place ") and first != second
    press(page, Keys.ENTER)
    assert find(page, "#side h3").text.startswith("Cluster ")
    press(page, Keys.ESCAPE)
    assert "Click a place" in find(page, "#side").text


def test_the_map_is_drawn_in_every_way_it_can_show(page):
    in_view(page, "#canvas")
    pictures = set()
    for layer in ("photos", "u", "hits", "confidence", "clusters", "tsne"):
        page.execute_script(
            "const s = document.getElementById('layer'); s.value = arguments[0]; s.dispatchEvent(new Event('change'))",
            layer,
        )
        time.sleep(0.4)
        pictures.add(page.execute_script("return document.getElementById('canvas').toDataURL().slice(0, 20000)"))
    assert len(pictures) == 6
    assert [entry for entry in page.get_log("browser") if entry["level"] == "SEVERE"] == []


def test_the_slider_shows_the_stored_cuts(page, finished):
    with np.load(finished / "data/d/som.npz") as som:
        counts = [len(np.unique(cut)) for cut in som["cut_clusters"]]
    shown = []
    for value in range(len(counts)):
        page.execute_script(
            "const s = document.getElementById('cut'); s.value = arguments[0]; s.dispatchEvent(new Event('input'))",
            value,
        )
        shown.append(page.execute_script("return document.querySelectorAll('.card').length"))
        assert find(page, "#cut-text").text.startswith(f"{counts[value]} cluster")
    assert shown == counts
    if shown[-1] != len(set(clusters_of(finished).values())):
        find(page, "#cut-reset").click()
    assert "(the result)" in find(page, "#cut-text").text or len(set(counts)) == 1


# ---- search ----------------------------------------------------------------------------------------


def test_search_by_file_name_finds_korean_and_opens_the_photograph(page):
    from selenium.webdriver.common.keys import Keys

    press(page, "/")
    assert page.execute_script("return document.activeElement.id") == "search"
    # as macOS would store it: decomposed
    page.execute_script("arguments[0].value = '검정'.normalize('NFD')", find(page, "#search"))
    page.execute_script("arguments[0].dispatchEvent(new Event('input'))", find(page, "#search"))
    assert page.execute_script("return [...document.querySelectorAll('#found .name')].map(e => e.firstChild.data)") == [
        "가방 1, 검정.jpg"
    ]
    press(page, Keys.ARROW_DOWN)
    press(page, Keys.ENTER)
    assert until(page, "document.querySelector('#detail[open] h2')?.textContent") == "가방 1, 검정.jpg"
    data = data_of(page)
    cluster = data["cluster"][data["names"].index("가방 1, 검정.jpg")]
    assert f"cluster {cluster}" in find(page, "#detail").text
    press(page, Keys.ESCAPE)
    assert page.execute_script("return document.getElementById('detail').open") is False


def test_search_for_nothing_says_so(page):
    find(page, "#search").send_keys("no such file")
    assert "No file name has that" in until(page, "document.getElementById('found').innerText")


# ---- the review list -------------------------------------------------------------------------------


def test_marks_become_corrections_csv_and_stay_after_a_reload(page, finished):
    data = data_of(page)
    for file in page.downloads.iterdir():
        file.unlink()
    assert not find(page, "#download").is_enabled()
    in_view(page, "#review-splits .marks")
    pairs = []
    for selector, relation in (("#review-splits .marks", "different"), ("#review-images .marks", "same")):
        in_view(page, selector)
        box = find(page, selector)
        box.find_element("css selector", f"input[value={relation}] + span").click()
        a, b = map(int, box.get_attribute("data-pair").split())
        pairs.append([data["names"][a], data["names"][b], relation])
    assert find(page, "#marks").text == "2 pairs marked, 1 from before"

    page.refresh()
    assert find(page, "#marks").text == "2 pairs marked, 1 from before"
    in_view(page, "#download")
    find(page, "#download").click()
    path = page.downloads / "corrections.csv"
    end = time.monotonic() + 10
    while not (path.exists() and path.stat().st_size) and time.monotonic() < end:  # the browser creates it empty
        time.sleep(0.05)
    rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8"), newline="")))
    assert rows[0] == ["image_a", "image_b", report_case.RELATION]
    assert rows[1] == [data["names"][0], "구두, alt.jpg", "different"]  # the earlier one is kept
    assert rows[2:] == pairs


def test_a_second_click_takes_a_mark_back(page):
    in_view(page, "#review-splits .marks")
    label = find(page, "#review-splits .marks input[value=same] + span")
    label.click()
    assert find(page, "#marks").text.startswith("1 pair marked")
    label.click()
    assert find(page, "#marks").text.startswith("0 pairs marked")


def test_the_downloaded_corrections_are_what_stage_04_reads(page, finished, tmp_path):
    data = data_of(page)
    root = tmp_path / "root"
    shutil.copytree(finished, root)
    a, b = data["names"][0], data["names"][-1]
    files.write_csv(root / "data/d/corrections.csv", ["image_a", "image_b", report_case.RELATION], [(a, b, "same")])
    done = report_case.run(root, "04.clustering_som.py")
    assert done.returncode == 0, done.stderr
    clusters = clusters_of(root)
    assert clusters[a] == clusters[b]


# ---- reading ---------------------------------------------------------------------------------------


def test_the_most_doubtful_cluster_and_a_wrongly_joined_pair_are_one_click_away(page, finished):
    evaluation = json.loads((finished / "result/d/evaluation.json").read_text(encoding="utf-8"))
    rows = files.read_csv(finished / "data/d/clusters.csv", ["cluster", "confidence"], "04")
    confidence = {}
    for row in rows:
        confidence.setdefault(int(row["cluster"]), []).append(float(row["confidence"]))
    least = min(np.mean(values) for values in confidence.values() if len(values) > 2)
    links = {link.text: link for link in page.find_elements("css selector", ".first a")}
    doubtful = next(text for text in links if text.startswith("Most doubtful: cluster "))
    assert np.mean(confidence[int(doubtful.split()[-1])]) == pytest.approx(least)
    joined = next(text for text in links if text.startswith("Wrongly joined: "))
    assert joined == "Wrongly joined: {} and {}".format(*evaluation["most_merged"][0]["models"])
    links[doubtful].click()
    assert until(page, "document.querySelector('.card.aim h3')?.textContent").lower() == doubtful.split(": ")[1]


@pytest.mark.parametrize(("width", "height"), [(360, 740), (800, 1100), (1600, 1000)])
def test_nothing_is_wider_than_the_screen(page, width, height):
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    page.refresh()
    until(page, "document.querySelectorAll('.card').length")
    assert page.execute_script("return document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_in_light_and_dark(page, scheme):
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    in_view(page, "#cards")
    until(page, "document.querySelector('.card .tags')")
    pairs = page.execute_script(
        """const solid = e => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
             if (!/, 0\\)$|transparent/.test(c)) return c; } return getComputedStyle(document.body).backgroundColor; };
        return ['h1', '.facts dt', '.facts .big', '.facts dd', '.how', 'a', '.card .tags', 'td', 'th', '.warnings',
          'button'].map(s => document.querySelector(s)).filter(Boolean)
          .map(e => [getComputedStyle(e).color, solid(e)]);"""
    )
    page.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": []})

    def luminance(colour: str) -> float:
        channels = [float(v) / 255 for v in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    assert len(pairs) >= 9
    for text, ground in pairs:
        light, dark = sorted((luminance(text), luminance(ground)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, (text, ground)  # WCAG 2.2, 1.4.3
    assert (luminance(pairs[0][1]) < 0.1) == (scheme == "dark")


def test_everything_that_can_be_used_has_a_name(page):
    in_view(page, "#review")
    nameless = page.execute_script(
        """const used = 'button, a[href], input, select, canvas, [role=img], svg';
        const named = e => e.getAttribute('aria-label') || e.textContent.trim() || e.labels?.length;
        return [...document.querySelectorAll(used)].filter(e => !named(e)).map(e => e.outerHTML.slice(0, 120));"""
    )
    assert nameless == []
    assert page.execute_script("return document.documentElement.lang") == "en"
    ids = page.execute_script("return [...document.querySelectorAll('[id]')].map(e => e.id)")
    assert len(ids) == len(set(ids))


def test_prints(page):
    printed = page.execute_cdp_cmd("Page.printToPDF", {"printBackground": True})
    assert len(printed["data"]) > 20_000


def test_without_labels_the_page_does_without(browser, tmp_path, monkeypatch):
    monkeypatch.setenv("IMAGE_CLUSTER_ROOT", str(tmp_path))
    report_case.make(tmp_path, labelled=False)
    report_case.run_all(tmp_path, "--SOM_TOPOLOGY=hexagonal")
    browser.get_log("browser")
    browser.get((tmp_path / "result/d/report.html").as_uri())
    until(browser, "document.querySelectorAll('.card').length")
    assert "no true labels are known" in find(browser, "#summary").text
    data = data_of(browser)
    assert len(data["map"]["corner"]) == 6
    click_on_unit(browser, max(range(len(data["map"]["hits"])), key=lambda u: data["map"]["hits"][u]))
    until(browser, "document.querySelectorAll('#side .photo').length")
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
