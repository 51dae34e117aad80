"""Without a network, a name of the Hub is loaded from the cache or refused at once, in one message."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from huggingface_hub import constants
from huggingface_hub.errors import LocalEntryNotFoundError

from robustify import downloads
from robustify.downloads import from_hub, unreachable
from robustify.errors import InputError, UnreachableError
from robustify.zoo import HELD_OUT

ZOO = HELD_OUT.parent
NAMES = {
    "hf:org/cached": "transformers",
    "diffusers:org/cached": "ddpm",
    "timm:hf-hub:org/cached": "timm",
    "open_clip:hf-hub:org/cached": "open_clip",
}

OFFLINE = """
import sys, time
from robustify.errors import UnreachableError
from robustify.registry import CLASSIFIERS, DENOISERS

for reference in sys.argv[1:]:
    registry = DENOISERS if reference.startswith("diffusers") else CLASSIFIERS
    print(registry.load(reference).name)
    start = time.monotonic()
    try:
        registry.load(reference.replace("cached", "elsewhere"))
    except UnreachableError as error:
        seconds = time.monotonic() - start
        print("refused", "at once" if seconds < 2 else seconds, str(error).splitlines()[0])
"""


class Answer(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_response(404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    """The address of a server of this machine, which answers."""
    with HTTPServer(("127.0.0.1", 0), Answer) as served:
        Thread(target=served.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Hub:
    """A loader that needs a file of the Hub, which is not in the cache."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.offline: list[bool] = []

    def load(self, name: str, /) -> str:
        """The name, or the error."""
        self.offline.append(constants.HF_HUB_OFFLINE)
        if self.error is not None:
            raise InputError("a library failed") from self.error
        return name


MISSING = LocalEntryNotFoundError("no such file in the cache")


class TestReach:
    def test_any_answer_will_do(self, server: str) -> None:
        assert unreachable(server) is None

    def test_nobody_listens(self, nobody: str) -> None:
        assert unreachable(nobody) == f"{nobody} cannot be reached (Connection refused)"

    def test_name_that_nobody_knows(self) -> None:
        assert str(unreachable("https://robustify.invalid")).startswith("https://robustify.invalid cannot be reached (")

    def test_connection_that_hangs_is_given_up(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        """As where a firewall drops packets, which is not said to the sender."""
        patient = Event()

        def hangs(*_: object, **__: object) -> socket.socket:
            patient.wait(30)
            raise TimeoutError

        monkeypatch.setattr(socket, "create_connection", hangs)
        start = time.monotonic()
        assert "no connection within" in str(unreachable(server))
        assert time.monotonic() - start < 2
        patient.set()

    def test_connection_without_an_answer_is_given_up(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(downloads, "_ANSWER", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as mute:
            assert "cannot be reached" in str(unreachable(f"http://127.0.0.1:{mute.getsockname()[1]}"))

    def test_proxy_is_asked_instead(self, server: str, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("http_proxy", nobody)
        assert "Connection refused" in str(unreachable("http://robustify.invalid"))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        assert unreachable(server) is None


class TestDecorator:
    def test_folders_ask_nobody(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", "never asked")
        monkeypatch.setattr(downloads, "unreachable", lambda _: pytest.fail("asked"))
        monkeypatch.chdir(tmp_path)
        (tmp_path / "here").mkdir()
        for name in ("here", str(tmp_path), "./x", "~/x", "local-dir:x"):
            assert from_hub("hf-hub:")(Hub().load)(name) == name

    def test_reached_hub_is_used(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", server)
        hub = Hub()
        assert from_hub("hf-hub:")(hub.load)("org/name") == "org/name"
        assert hub.offline == [False]

    def test_unreached_hub_is_not_tried_and_later_tried_again(
        self, server: str, nobody: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub = Hub()
        for endpoint in (nobody, server):
            monkeypatch.setattr(constants, "ENDPOINT", endpoint)
            assert from_hub("hf-hub:")(hub.load)("org/name") == "org/name"
            assert constants.HF_HUB_OFFLINE is False
        assert hub.offline == [True, False]

    def test_missing_files_are_one_message(self, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", nobody)
        text = rf"'org/name': {nobody} cannot be reached \(Connection refused\), and not all .*\n.*\n.*hf download"
        with pytest.raises(UnreachableError, match=text):
            from_hub("hf-hub:")(Hub(MISSING).load)("org/name")
        assert constants.HF_HUB_OFFLINE is False

    @pytest.mark.parametrize(("prefix", "name"), [("", "org/name"), ("hf-hub:", "hf-hub:org/name@main")])
    def test_repository_that_is_not_cached_is_refused_before_its_library_is_asked(
        self, prefix: str, name: str, nobody: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", nobody)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        hub = Hub()
        with pytest.raises(UnreachableError, match=f"'{name}': {nobody} cannot be reached"):
            from_hub(prefix)(hub.load)(name)
        assert not hub.offline
        (tmp_path / "models--org--name").mkdir()
        assert from_hub(prefix)(hub.load)(name) == name

    def test_hub_that_stops_to_answer(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", server)
        with pytest.raises(UnreachableError, match="the Hub does not answer any more"):
            from_hub("hf-hub:")(Hub(MISSING).load)("org/name")

    def test_user_may_forbid_the_network(self, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", server)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(UnreachableError, match="HF_HUB_OFFLINE or TRANSFORMERS_OFFLINE is set"):
            from_hub("hf-hub:")(Hub(MISSING).load)("org/name")
        assert constants.HF_HUB_OFFLINE is True

    def test_other_errors_stay_what_they_are(self, nobody: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(constants, "ENDPOINT", nobody)
        with pytest.raises(InputError, match="a library failed") as caught:
            from_hub("hf-hub:")(Hub(OSError("damaged")).load)("org/name")
        assert not isinstance(caught.value, UnreachableError)


@pytest.mark.slow
def test_every_library_reads_its_cache_and_refuses_at_once(tmp_path: Path, nobody: str) -> None:
    """As a user without a network has it: one process, the real libraries, names cached and not."""
    for reference, folder in NAMES.items():
        place = tmp_path / reference.partition(":")[0] / "hub/models--org--cached"
        shutil.copytree(ZOO / folder, place / "snapshots/abc")
        (place / "refs").mkdir()
        (place / "refs/main").write_text("abc")
    clip = tmp_path / "open_clip/hub/models--org--cached"
    config = clip / "snapshots/abc/open_clip_config.json"
    content = json.loads(config.read_text())
    content["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "org/cached"
    config.write_text(json.dumps(content))
    (clip / ".no_exist/abc").mkdir(parents=True)  # the first load, on-line, finds that there is no such file
    (clip / ".no_exist/abc/config.json").touch()
    for reference in NAMES:
        home = str(tmp_path / reference.partition(":")[0])
        environment = {**os.environ, "HF_HOME": home, "HF_ENDPOINT": nobody, "HF_HUB_OFFLINE": ""}
        command = [sys.executable, "-W", "ignore", "-c", OFFLINE, reference]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        name = reference.partition(":")[2].replace("cached", "elsewhere")
        said = f"refused at once cannot get the files of {name!r}: {nobody} cannot be reached (Connection refused)"
        assert done.stdout.startswith(f"{reference}\n{said}"), done.stdout + done.stderr
        assert "offline" not in done.stderr.lower()  # what libraries would say of it themselves
