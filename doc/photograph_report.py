"""Photograph the report in a browser, for the documentation: doc/report_*.png.

    python 06.visualization.py --DATASET=catalogue_test
    python doc/photograph_report.py result/catalogue_test/report.html

Needs Chromium with chromedriver (Debian: apt install chromium chromium-driver) and selenium (requirements-test.txt).
"""

import base64
import io
import shutil
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium import webdriver
from selenium.webdriver.chrome.service import Service

DOC_DIR = Path(__file__).resolve().parent
WIDE, NARROW = (1280, 900, 1), (390, 844, 1.5)  # width and height in CSS pixels, pixels for each
# name -> screen, colours, what to look at, what to do first
SHOTS = {
    "report_light": (WIDE, "light", "summary", ""),
    "report_dark": (WIDE, "dark", "summary", ""),
    "report_map_light": (WIDE, "light", "map", "choose"),
    "report_review_dark": (WIDE, "dark", "review", ""),
    "report_narrow_light": (NARROW, "light", "summary", ""),
    "report_narrow_dark": (NARROW, "dark", "map", ""),
}
# a place of the map, reached with the arrow keys
CHOOSE = """const canvas = document.getElementById('canvas');
  canvas.focus(); const press = key => canvas.dispatchEvent(new KeyboardEvent('keydown', {key}));
  for (let i = 0; i < 6; i++) { press('ArrowRight'); if (i % 2) press('ArrowDown'); }"""


def shoot(driver: webdriver.Chrome, report: Path, screen: tuple, colours: str, section: str, action: str) -> bytes:
    """Return a PNG of the screen with `section` of the report at its top."""
    width, height, ratio = screen
    metrics = {"width": width, "height": height, "deviceScaleFactor": ratio, "mobile": width < 500}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    media = {"features": [{"name": "prefers-color-scheme", "value": colours}]}
    driver.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    driver.get(report.as_uri())
    if action == "choose":
        driver.execute_script(CHOOSE)
    driver.execute_script("document.documentElement.style.scrollBehavior = 'auto'")
    driver.execute_script("document.getElementById(arguments[0]).scrollIntoView()", section)
    time.sleep(2)  # photographs are decoded as they come into view
    return base64.b64decode(driver.execute_cdp_cmd("Page.captureScreenshot", {"format": "png"})["data"])


def main() -> None:
    report = Path(sys.argv[1]).resolve()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    with tempfile.TemporaryDirectory() as profile:
        for switch in ("headless=new", "no-sandbox", "disable-gpu", "hide-scrollbars", f"user-data-dir={profile}"):
            options.add_argument(f"--{switch}")
        driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
        for name, shot in SHOTS.items():
            picture = Image.open(io.BytesIO(shoot(driver, report, *shot))).convert("RGB")
            picture.save(DOC_DIR / f"{name}.png", optimize=True)
            print(f"doc/{name}.png: {(DOC_DIR / f'{name}.png').stat().st_size / 1000:.0f} kB")
        driver.quit()


if __name__ == "__main__":
    main()
