"""A headless browser that shows the sandbox's page.

In: Debian's chromium and chromedriver. Out: the content of the page, polled until it appears. The
browser resolves no name and reaches only loopback. It records all requests, and a test fails if the
page sends a request to any other host. Screenshots are kept in tests/.cache/screenshots.
"""

import json
import shutil
from pathlib import Path
from urllib.parse import urlsplit

from page_traces import compact
from processes import wait_for
from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys
from service import put_documents

#: The credentials that the sandbox accepts. They are public: src/daemon/sandbox.rs contains them.
ACCESS_KEY, SECRET_KEY = "xrayd-sandbox", "xrayd-sandbox-secret"

SCREENSHOTS = Path(__file__).parent.parent / ".cache" / "screenshots"

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--lang=en",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

#: Imports a module of the page and calls one of its functions.
CALL = """
const [module, name, args, done] = arguments;
import(`/page/${module}`).then(async (it) => done({value: await it[name](...args)}))
    .catch((error) => done({error: String(error)}));
"""

#: Runs an action. Measures the milliseconds until the browser has drawn the result, and counts the
#: changed elements.
MEASURE = """
const [act, done] = arguments;
const start = performance.now();
let changeCount = 0;
const size = (node) => 1 + (node.querySelectorAll?.("*").length ?? 0);
const count = (records) => {
    for (const { addedNodes } of records) {
        changeCount += 1 + [...addedNodes].reduce((sum, node) => sum + size(node), 0);
    }
};
const observer = new MutationObserver(count);
const all = { subtree: true, childList: true, attributes: true, characterData: true };
observer.observe(document, all);
new Function(act)();
requestAnimationFrame(() => setTimeout(() => {
    count(observer.takeRecords());
    observer.disconnect();
    done([performance.now() - start, changeCount]);
}));
"""

#: Makes `fetch` return invented answers for some paths. A test can then give the page data that
#: the sandbox would refuse.
ANSWERS = """
const answers = %s;
const real = window.fetch;
window.fetch = (path, options) => {
    const own = answers[String(path).split("?")[0]];
    return own ? Promise.resolve(new Response(JSON.stringify(own))) : real(path, options);
};
"""


def start_browser():
    """Starts the browser. chromium and chromedriver must be installed; nothing is downloaded."""
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    assert all(programs), "Debian's chromium and chromium-driver are not installed"
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ARGUMENTS:
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    return webdriver.Chrome(options=options, service=Service(programs[1]))


class Page:
    """The page of one sandbox."""

    def __init__(self, driver, sandbox):
        self.driver, self.url = driver, sandbox.url
        self._script = None
        self.resize(1440, 900)
        self.prefer("light")

    def open(self, fragment="", answers=None):
        """Loads the page with this fragment. `answers` are invented answers of the sandbox, by
        path.
        """
        self.driver.get("about:blank")
        self._drop_answers()
        if answers:
            source = ANSWERS % json.dumps(answers)
            command = "Page.addScriptToEvaluateOnNewDocument"
            self._script = self.driver.execute_cdp_cmd(command, {"source": source})["identifier"]
        self.driver.get(f"{self.url}/{fragment}")
        return self

    def _drop_answers(self):
        if self._script:
            command = "Page.removeScriptToEvaluateOnNewDocument"
            self.driver.execute_cdp_cmd(command, {"identifier": self._script})
            self._script = None

    def put(self, documents):
        """Puts documents into the sandbox. A string is sent unchanged, a dictionary as compact
        JSON.
        """
        texts = [it if isinstance(it, str) else compact(it) for it in documents]
        put_documents(self.url, texts, ACCESS_KEY, SECRET_KEY)

    def resize(self, width, height):
        """Sets the size of the page, in CSS pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def prefer(self, scheme):
        """Sets the colour scheme that the system prefers: "light" or "dark"."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def js(self, script, *arguments):
        """Returns the result of a script."""
        return self.driver.execute_script(script, *arguments)

    def call(self, module, name, *arguments):
        """Returns the result of a function in a module of the page."""
        answer = self.driver.execute_async_script(CALL, module, name, list(arguments))
        assert "error" not in answer, answer
        return answer.get("value")

    def measure(self, act):
        """Runs a script. Returns the milliseconds until its result is on the screen, and the number
        of changed elements.
        """
        return self.driver.execute_async_script(MEASURE, act)

    def texts(self, selector):
        """Returns the texts of all visible elements that match the selector."""
        return self.js(
            "return [...document.querySelectorAll(arguments[0])]"
            ".filter((it) => it.checkVisibility()).map((it) => it.innerText.trim())",
            selector,
        )

    def wait(self, find, complaint):
        """Waits until `find` returns a true value, and returns that value."""
        where = "return location.href + '\\n' + document.body.innerText.slice(0, 2000)"
        return wait_for(find, lambda: f"{complaint}\n{self.js(where)}")

    def wait_for_text(self, selector, text):
        """Waits until a visible element that matches the selector contains `text`."""
        found = lambda: any(text in one for one in self.texts(selector))
        self.wait(found, f"no {text!r} in {selector}")

    def wait_for_count(self, selector, count):
        """Waits until `count` elements that match the selector are visible."""
        self.wait(lambda: len(self.texts(selector)) == count, f"not {count} of {selector}")

    def rows(self):
        """Returns the names in the rows of the list or the waterfall, from top to bottom."""
        return self.js(
            "return [...document.querySelectorAll('.virtual-row')]"
            ".filter((it) => it.checkVisibility())"
            ".sort((a, b) => a.getBoundingClientRect().y - b.getBoundingClientRect().y)"
            ".map((it) => it.querySelector('.name, .wf-name').textContent)"
        )

    def click(self, selector, text=""):
        """Waits for a visible element with this selector and text, and clicks it."""
        script = (
            "return [...document.querySelectorAll(arguments[0])].find((it) =>"
            " it.checkVisibility() && it.textContent.includes(arguments[1]))"
        )

        def click():
            element = self.js(script, selector, text)
            if not element:
                return False
            try:
                ActionChains(self.driver).move_to_element(element).click().perform()
            except StaleElementReferenceException:
                # The page has replaced the element in the meantime.
                return False
            return True

        self.wait(click, f"no {selector} {text!r}")

    def fill(self, selector, text):
        """Types into a field and replaces its content."""
        self.js(
            "const it = document.querySelector(arguments[0]); it.focus(); it.select()", selector
        )
        self.press(text if text else Keys.BACKSPACE)

    def press(self, *keys):
        """Presses keys one after the other."""
        ActionChains(self.driver).send_keys(*keys).perform()

    def fragment(self):
        """Returns the fragment of the page's address."""
        return self.js("return location.hash")

    def copied(self, press):
        """Calls `press`, which makes the page copy a text. Returns the content of the clipboard."""
        permissions = ["clipboardReadWrite", "clipboardSanitizedWrite"]
        command = {"origin": self.url, "permissions": permissions}
        self.driver.execute_cdp_cmd("Browser.grantPermissions", command)
        press()
        # The button changes when the text is in the clipboard.
        self.wait(
            lambda: self.js("return document.querySelector('.is-done')"), "the text is not copied"
        )
        read = "navigator.clipboard.readText().then(arguments[0], arguments[0])"
        return self.driver.execute_async_script(read)

    def picture(self, name):
        """Saves a screenshot of the page."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        self.driver.save_screenshot(str(SCREENSHOTS / f"{name}.png"))

    def close(self):
        """Leaves the page. Fails if the page logged an error or sent a request to another host."""
        self.driver.get("about:blank")
        self._drop_answers()
        console, network = self.driver.get_log("browser"), self.driver.get_log("performance")
        complaints = [
            entry["message"]
            for entry in console
            # The browser also logs each error status of the sandbox. A test may expect such a
            # status.
            if entry["level"] == "SEVERE" and "Failed to load resource" not in entry["message"]
        ]
        assert not complaints, complaints
        asked = set()
        for entry in network:
            message = json.loads(entry["message"])["message"]
            if message["method"] in ("Network.requestWillBeSent", "Network.webSocketCreated"):
                parameters = message["params"]
                asked.add(parameters.get("url") or parameters["request"]["url"])
        assert asked, "the log of the network is empty"
        own = urlsplit(self.url).netloc
        # The icons of the browser's own controls are data URLs.
        nowhere = ("about:blank", "data:image/svg+xml;")
        others = [
            url for url in asked if not url.startswith(nowhere) and urlsplit(url).netloc != own
        ]
        assert not others, others
