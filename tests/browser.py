"""Chromium without a window, by its own driver: opens a page from disk, and tells what went wrong in it."""

import base64
import io
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

SECONDS = 60.0
"""How long something is waited for."""


class Browser:
    """One window, as wide as a desktop's unless it is told otherwise."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path, *, width: int = 1280, dark: bool = False) -> None:
        """Opens a page from disk and waits until it has measured its first image."""
        self._of_chromium(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._of_chromium("Emulation.setEmulatedMedia", features=[scheme])
        for log in ("browser", "performance"):
            self.driver.get_log(log)
        self.driver.get(page.as_uri())
        self.wait("seen.isMeasured")

    def run(self, script: str, *arguments: Any) -> Any:
        """The value of an expression of JavaScript; `given` has the arguments."""
        return self.driver.execute_script(f"const given = arguments; return {script}", *arguments)

    def wait(self, condition: str) -> None:
        """Waits until an expression is true."""
        from selenium.webdriver.support.wait import WebDriverWait

        WebDriverWait(self.driver, SECONDS, 0.05).until(lambda driver: self.run(condition), condition)

    def element(self, selector: str) -> Any:
        """The first element of a CSS selector."""
        return self.driver.find_element("css selector", selector)

    def click(self, selector: str) -> None:
        """Clicks it."""
        self.element(selector).click()
        self.settle()

    def drag(self, selector: str, *places: tuple[float, float]) -> None:
        """Presses at the first place of an element, moves to the others and lets go; shares of its width and height."""
        from selenium.webdriver import ActionChains

        element = self.element(selector)
        self.run("given[0].scrollIntoView({ block: 'center' })", element)
        size = element.size
        offsets = [(round((x - 0.5) * size["width"]), round((y - 0.5) * size["height"])) for x, y in places]
        actions = ActionChains(self.driver, duration=20).move_to_element_with_offset(element, *offsets[0])
        actions.click_and_hold()
        for offset in offsets[1:]:
            actions.move_to_element_with_offset(element, *offset)
        actions.release().perform()
        self.settle()

    def press(self, selector: str, *keys: str) -> None:
        """Presses keys one after the other, in an element."""
        self.element(selector).send_keys(*keys)
        self.settle()

    def settle(self) -> None:
        """Waits for the next picture of the screen."""
        self.driver.execute_async_script(
            "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        )

    def picture(self, selector: str) -> list[int]:
        """The values of a canvas, row by row, in its red channel."""
        address = self.run("document.querySelector(given[0]).toDataURL()", selector)
        image = Image.open(io.BytesIO(base64.b64decode(address.partition("base64,")[2])))
        return list(image.convert("RGB").getchannel("R").tobytes())

    def complaints(self) -> list[str]:
        """What the console says, and addresses other than the page's own."""
        messages = [entry["message"] for entry in self.driver.get_log("browser")]
        for entry in self.driver.get_log("performance"):
            event = json.loads(entry["message"])["message"]
            if event["method"] == "Network.requestWillBeSent":
                address = event["params"]["request"]["url"]
                if not address.startswith(("data:", "file:")) or event["params"]["type"] not in ("Document", "Other"):
                    messages.append(address)
        return messages

    def _of_chromium(self, command: str, **settings: Any) -> None:
        self.driver.execute_cdp_cmd(command, settings)


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser; the test is skipped where there is none."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: the extra dev has it")
    program = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    driver_program = shutil.which("chromedriver")
    if program is None or driver_program is None:
        pytest.skip("there is no Chromium with its chromedriver on this machine")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver_program))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
