"""A real browser for tests: Debian's chromium without a window, and what happens on its pages."""

import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from conftest import unavailable
from selenium import webdriver
from selenium.webdriver import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement

SIZE = 1300, 1000


class Browser:
    """A browser that shows one page at a time."""

    def __init__(self, driver: webdriver.Chrome, downloads: Path) -> None:
        self.driver, self.downloads = driver, downloads
        self.tell("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(downloads))

    def tell(self, command: str, **values: object) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(command, values)

    def show(self, page: Path, *, width: int = SIZE[0], dark: bool = False, scripts: bool = True) -> None:
        """Load ``page``, and wait until its scripts, if they may run, have drawn it."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.tell("Emulation.setEmulatedMedia", features=[scheme])
        self.tell("Emulation.setScriptExecutionDisabled", value=not scripts)
        self.tell("Emulation.setDeviceMetricsOverride", width=width, height=SIZE[1], deviceScaleFactor=1, mobile=False)
        self.driver.get(page.as_uri())
        if scripts:
            self.until(lambda: self.driver.find_elements(By.CSS_SELECTOR, "[data-ready]"))

    def until(self, happens: Callable[[], object]) -> None:
        """Wait until ``happens`` returns something true, for at most ten seconds."""
        deadline = time.monotonic() + 10
        while not happens():
            assert time.monotonic() < deadline, "it did not happen"
            time.sleep(0.01)

    def find(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def text(self, selector: str) -> str:
        return self.find(selector).text

    def choose(self, selector: str, value: str) -> None:
        """Choose from a list."""
        self.find(f'{selector} option[value="{value}"]').click()

    def press(self, *keys: str) -> None:
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def move(self, panel: WebElement, x: float, y: float) -> ActionChains:
        """Move the pointer to ``x``, ``y`` within ``panel``, as shares of its width and height, and show it before."""
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", panel)
        width, height = panel.rect["width"], panel.rect["height"]
        offset = round((x - 0.5) * width), round((y - 0.5) * height)
        actions = ActionChains(self.driver, duration=0)
        actions.move_to_element_with_offset(panel, *offset)
        actions.perform()
        return actions

    def evaluate(self, script: str) -> Any:
        return self.driver.execute_script(f"return {script}")

    def log(self) -> list[str]:
        """What the page has written to the console since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]  # type: ignore[no-untyped-call]

    def downloaded(self, name: str) -> bytes:
        """The content of a file that the page saves."""
        path = self.downloads / name
        self.until(path.exists)
        return path.read_bytes()


@contextmanager
def started(downloads: Path) -> Iterator[Browser]:
    """A browser that saves files in ``downloads``; without chromium on this machine the test skips, but not in CI."""
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        unavailable("chromium and chromedriver are not on this machine; `make browser` installs them for root")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    running = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield Browser(running, downloads)
    finally:
        running.quit()
