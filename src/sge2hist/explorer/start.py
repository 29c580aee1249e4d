"""Starts the explorer: checks, a socket on loopback, a random token, and the server in this or in a background thread."""

from __future__ import annotations

import secrets
import socket
import threading
import time
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sge2hist.data.errors import InputError
from sge2hist.data.generated import GeneratedSlide
from sge2hist.data.paired import PairedDataset
from sge2hist.generation.applicability import Warn, warn_user
from sge2hist.models.bundle import ModelBundle, model_folder
from sge2hist.viewer.colours import shown_slide_number

if TYPE_CHECKING:
    import numpy as np
    import uvicorn

    from sge2hist.explorer.web.server import ExplorerServer

LOOPBACK = "127.0.0.1"
UNNAMED_MODEL = "MODEL"
START_SECONDS = 30.0


class HasBundle(Protocol):
    """An object with a model bundle, as :class:`sge2hist.SGE2Hist` is."""

    @property
    def bundle(self) -> ModelBundle:
        """The model with its genes and types."""


class Explorer:
    """A running explorer. In a notebook it shows itself: as a widget (anywidget), or in a frame.

    Attributes
    ----------
    url
        Address of the page, with its token.
    """

    def __init__(self, server: ExplorerServer, port: int, token: str, sock: socket.socket) -> None:
        self.url = f"http://{LOOPBACK}:{port}/{token}/"
        self._server, self._socket = server, sock
        self._running: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None

    @property
    def edits(self) -> list[dict[str, Any]]:
        """Edits of the tab that was used last, as the protocol of the explorer writes them; can be set."""
        session = self._server.sessions.latest()
        return [] if session is None else session.state()["edits"]

    @edits.setter
    def edits(self, edits: list[dict[str, Any]]) -> None:
        session = self._server.sessions.latest() or self._server.sessions.new()
        with session.lock:
            session.replace_all(list(edits))

    @property
    def image(self) -> np.ndarray | None:
        """The last image at full quality, after edits: uint8 [H, W, C]; None before the first."""
        return self._server.renderer.last

    def run(self) -> None:
        """Serve until interrupted."""
        self._uvicorn().run(sockets=[self._socket])

    def start(self) -> Explorer:
        """Serve in a thread of the background; returns when the page can be opened."""
        running = self._uvicorn()
        self._thread = threading.Thread(target=running.run, args=([self._socket],), daemon=True, name="explorer")
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not running.started and self._thread.is_alive() and time.monotonic() < deadline:
            time.sleep(0.01)
        if not running.started:
            raise InputError(found="a server that did not start", where=self.url, expected="a free port")
        return self

    def close(self) -> None:
        """Stop serving."""
        if self._running is not None:
            self._running.should_exit = True
        if self._thread is not None:
            self._thread.join(START_SECONDS)
        self._socket.close()  # also of an explorer that never ran
        self._server.renderer.close()

    def _uvicorn(self) -> uvicorn.Server:
        import uvicorn

        config = uvicorn.Config(
            self._server.app,
            log_level="warning",
            access_log=False,  # addresses hold the token
            server_header=False,
            ws="none",
            lifespan="on",
            limit_concurrency=128,
            timeout_graceful_shutdown=3,
        )
        self._running = uvicorn.Server(config)
        return self._running

    def __repr__(self) -> str:
        return f"Explorer({self.url})"

    def _repr_mimebundle_(self, **options: Any) -> Any:
        try:
            from sge2hist.explorer.widget import widget_of
        except ImportError:
            frame = f'<iframe src="{self.url}" width="100%" height="720" style="border:0"></iframe>'
            return {"text/html": frame, "text/plain": repr(self)}
        return widget_of(self.url)._repr_mimebundle_(**options)


def open_explorer(
    model: HasBundle | ModelBundle | str | Path,
    data: PairedDataset | str | Path,
    *,
    generated: GeneratedSlide | str | Path | None = None,
    section: str | None = None,
    port: int = 0,
    save_to: str | Path | None = None,
    force: bool = False,
    warn: Warn = warn_user,
) -> Explorer:
    """Check everything and take a port; :meth:`Explorer.run` or :meth:`Explorer.start` then serves.

    Raises
    ------
    InputError
        If model, data and generated slide do not fit together, the port is taken, or a package of the extra `explore` is missing.
    """
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise InputError(
            found=f"no package {error.name}",
            expected="the extra of the explorer",
            repair="pip install 'sge2hist[explore]'",
        ) from error
    sock = _taken_socket(port)
    try:
        from sge2hist.explorer.exports import SavedEdits
        from sge2hist.explorer.tissue import Tissue
        from sge2hist.explorer.web.server import ExplorerServer

        bundle, name = _open_model(model)
        dataset = data if isinstance(data, PairedDataset) else PairedDataset.open(data)
        slide = GeneratedSlide.open(generated) if isinstance(generated, str | Path) else generated
        number = _slide_number(dataset, section, slide)
        tissue = Tissue(bundle, dataset, model_name=name, slide=number, generated=slide, force=force, warn=warn)
        token = secrets.token_urlsafe(24)
        server = ExplorerServer(tissue, token, SavedEdits(None if save_to is None else Path(save_to)))
    except BaseException:
        sock.close()
        raise
    return Explorer(server, sock.getsockname()[1], token, sock)


def explore(
    model: HasBundle | ModelBundle | str | Path,
    data: PairedDataset | str | Path,
    *,
    generated: GeneratedSlide | str | Path | None = None,
    section: str | None = None,
    port: int = 0,
    save_to: str | Path | None = None,
    force: bool = False,
) -> Explorer:
    """Start the explorer in the background and return it; as the last line of a notebook cell it shows the page.

    Parameters
    ----------
    model, data
        A model (folder, "pretrained:kidney" or `SGE2Hist`) and the paired dataset whose cells are edited.
    generated
        A slide made of the dataset by `generate-slide`, shown beside the real one.
    section
        Name of one of several slides of the dataset.
    port
        Port on loopback; 0: any free one.
    save_to
        Folder for saved lists of edits; None: they can be downloaded only.
    force
        Also of cells that the model does not know (see :mod:`sge2hist.generation.applicability`).

    Raises
    ------
    InputError
        As :func:`open_explorer` does.

    Example
    -------
    .. code-block:: python

        explorer = sge2hist.explore("pretrained:kidney", "kidney.paired")
        explorer.edits, explorer.image  # ([], None)
    """
    found = open_explorer(model, data, generated=generated, section=section, port=port, save_to=save_to, force=force)
    return found.start()


def open_page_when_ready(explorer: Explorer, show: Callable[[str], object] = webbrowser.open) -> None:
    """Open the page in a browser once the server answers."""

    def wait() -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if explorer._running is not None and explorer._running.started:
                show(explorer.url)
                return
            time.sleep(0.05)

    threading.Thread(target=wait, daemon=True).start()


def _taken_socket(port: int) -> socket.socket:
    """A socket bound to loopback."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((LOOPBACK, port))
    except (OSError, OverflowError) as error:
        sock.close()
        raise InputError(
            found=f"port {port}, which cannot be used ({error})",
            expected="a free port from 1024 to 65535, or 0 for any",
        ) from error
    return sock


def _open_model(model: HasBundle | ModelBundle | str | Path) -> tuple[ModelBundle, str]:
    if isinstance(model, str | Path):
        return ModelBundle.load(model_folder(model)), str(model)
    bundle = model if isinstance(model, ModelBundle) else getattr(model, "bundle", None)
    if not isinstance(bundle, ModelBundle):
        raise InputError(
            found=f"a model of type {type(model).__name__}",
            expected="an SGE2Hist, a model folder, or a name such as pretrained:kidney",
        )
    return bundle, UNNAMED_MODEL


def _slide_number(dataset: PairedDataset, section: str | None, generated: GeneratedSlide | None) -> int:
    if generated is not None:
        if section not in (None, generated.slide_id):
            raise InputError(
                found=f"section {section!r} and a slide that was generated from {generated.slide_id!r}",
                where=str(generated.path),
                expected="the same section",
                repair="omit --section",
            )
        return shown_slide_number(generated, dataset)
    if section is None and len(dataset.slide_ids) == 1:
        return 0
    if section not in dataset.slide_ids:
        raise InputError(
            found=f"{len(dataset.slide_ids)} slides" if section is None else f"section {section!r}",
            where=str(dataset.path),
            expected=f"one of {', '.join(dataset.slide_ids)}",
            repair=f"--section {dataset.slide_ids[0]}",
        )
    return dataset.slide_ids.index(section)
