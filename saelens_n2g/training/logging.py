"""Logging of a run: always to a local `metrics.jsonl`, and to Weights & Biases as far as wanted and possible.

The file carries no times, so equal runs give equal files. W&B is a guest: it is imported only where it is used, keeps
its files in the run's folder, prints nothing, and whatever goes wrong in it costs one line of report, never the run.
"""

import json
import logging
import netrc
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from saelens_n2g.errors import InputError
from saelens_n2g.jobs.artefacts import ensure_folder, write_text
from saelens_n2g.training.config import WandbMode
from saelens_n2g.training.metrics import DENSITY, FeatureDensity

METRICS = "metrics.jsonl"
SAMPLES = "details/n_training_samples"
INIT_SECONDS, FINISH_SECONDS = 30, 60
"""Longest that W&B may take to begin and, uploading, to end."""

ResolvedMode = Literal["online", "offline", "disabled"]
Report = Callable[[str], None]


def report_as_warning(message: str) -> None:
    """The default `Report`: through the standard logging of this package."""
    logging.getLogger(__name__).warning(message)


class MetricsFile:
    """`metrics.jsonl`: one JSON object per line, keys sorted."""

    def __init__(self, path: Path, samples: int = 0) -> None:
        """Open for a run that stands at `samples` activations: later lines, of a run cut short, are taken out."""
        ensure_folder(path.parent)
        write_text(path, "".join(line for line in _whole_lines(path) if json.loads(line)[SAMPLES] <= samples))
        self._file = open(path, "a", encoding="utf-8")  # noqa: SIM115  (open for the run; `close` below)

    def write(self, line: Mapping[str, float | int]) -> None:
        """Append one line and hand it to the operating system."""
        self._file.write(json.dumps(line, sort_keys=True, allow_nan=False) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _whole_lines(path: Path) -> list[str]:
    """Lines of an earlier run; the last one is left out if the run was killed while writing it."""
    if not path.exists():
        return []
    return [line for line in path.read_text(encoding="utf-8").splitlines(keepends=True) if line.endswith("\n")]


def _has_account() -> bool:
    """Whether W&B would find a key without asking: in the environment or in the netrc file."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    path = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    if not path.is_file():
        return False
    host = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname or ""
    try:
        return netrc.netrc(str(path)).authenticators(host) is not None
    except netrc.NetrcParseError:
        # W&B itself could not read a key from it either.
        return False


def wandb_mode(asked: WandbMode) -> ResolvedMode:
    """Which of `online`, `offline`, `disabled` a run uses.

    `disabled`, in the configuration or in WANDB_MODE, beats everything; then comes what was asked for, then
    WANDB_MODE, then `online` if there is an account and `offline` if not. Raises `InputError` for another WANDB_MODE.
    """
    given = os.environ.get("WANDB_MODE", "").lower()
    named: dict[str, ResolvedMode | None] = {
        "": None,
        "online": "online",
        "run": "online",
        "offline": "offline",
        "dryrun": "offline",
        "disabled": "disabled",
    }
    if given not in named:
        raise InputError("environment variable WANDB_MODE", "online, offline or disabled", repr(given))
    if "disabled" in (asked, named[given]):
        return "disabled"
    if asked != "auto":
        return asked
    return named[given] or ("online" if _has_account() else "offline")


@contextmanager
def _environment_default(name: str, value: str) -> Iterator[None]:
    """Set a variable for the duration, unless it is set already."""
    if name in os.environ:
        yield
        return
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


class WandbRun:
    """One W&B run that can fail without harm: the first error is reported and ends the logging there."""

    def __init__(
        self, mode: ResolvedMode, folder: Path, project: str, config: Mapping[str, Any], report: Report
    ) -> None:
        self._report = report
        self._run: Any = None
        if mode != "disabled":
            self._guarded("start", lambda: self._start(mode, folder, project, config))

    def _guarded(self, what: str, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception as error:
            # Anything at all: no trouble of a logging service is worth a training run. It is said, not swallowed.
            self._run = None
            first_line = (str(error) or type(error).__name__).splitlines()[0]
            self._report(f"W&B failed to {what} ({first_line}); the run goes on with {METRICS} alone")

    def _start(self, mode: ResolvedMode, folder: Path, project: str, config: Mapping[str, Any]) -> None:
        import wandb

        ensure_folder(folder)
        wanted = {
            "silent": True,
            "console": "off",
            "disable_git": True,
            "save_code": False,
            "x_disable_stats": True,
            "x_disable_meta": True,
            "x_save_requirements": False,
            "init_timeout": INIT_SECONDS,
            "login_timeout": INIT_SECONDS,
            "finish_timeout": FINISH_SECONDS,
        }
        # Releases differ in the settings they know.
        settings = wandb.Settings(**{k: v for k, v in wanted.items() if k in wandb.Settings.model_fields})
        with _environment_default("WANDB_CACHE_DIR", str(folder / "wandb" / "cache")):
            self._run = wandb.init(
                project=project, dir=str(folder), mode=mode, config=dict(config), settings=settings, reinit="create_new"
            )

    def log(self, line: Mapping[str, float | int], density: FeatureDensity | None = None) -> None:
        """Log one line, at the number of samples it names, and the histogram of log10 firing rates if there is one."""
        if self._run is None:
            return

        def send() -> None:
            more: dict[str, Any] = {}
            if density is not None:
                import wandb

                counts = (density.counts, density.edges)
                more = {DENSITY: wandb.Histogram(np_histogram=counts), f"{DENSITY}/never": density.never}
            self._run.log({**line, **more}, step=int(line[SAMPLES]))

        self._guarded("log", send)

    def finish(self, summary: Mapping[str, Any], exit_code: int = 0) -> None:
        """Add `summary` to the run's and end it; does nothing after an earlier failure or a second time."""
        if self._run is None:
            return

        def end() -> None:
            self._run.summary.update(dict(summary))
            self._run.finish(exit_code=exit_code)

        self._guarded("finish", end)
        self._run = None
