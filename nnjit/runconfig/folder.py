"""The run folder: what a run keeps, and what a later command reads back.

config.toml        the configuration, filled in
preparation.json   scaling, sample shape and class names: how `predict` reads raw samples
versions.json      what the run ran on; the seed
metrics.jsonl      one line an epoch
log.txt            what happened when
checkpoints/       resume from the newest
model.nnjit        after the last epoch; best.nnjit: after the best one
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

from nnjit.atomic import write_atomic
from nnjit.errors import CacheError, ConfigError
from nnjit.profiling.environment import versions
from nnjit.runconfig.data import Preparation
from nnjit.runconfig.schema import Config


@dataclass(frozen=True)
class RunFolder:
    """Paths of one run, and writing and reading them."""

    path: Path

    @property
    def config(self) -> Path:
        return self.path / "config.toml"

    @property
    def metrics(self) -> Path:
        return self.path / "metrics.jsonl"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def model(self) -> Path:
        return self.path / "model.nnjit"

    @property
    def base(self) -> Path:
        """The model that a fine-tuning run started from."""
        return self.path / "base.nnjit"

    @property
    def best(self) -> Path:
        return self.path / "best.nnjit"

    def make(self) -> None:
        """The folder itself; CacheError if that cannot be."""
        try:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
        except OSError as e:
            raise unwritable(self.path, e) from None

    def write_start(self, config: Config, preparation: Preparation) -> None:
        """What is known before the first step; CacheError if the folder cannot be written."""
        import tomli_w

        self.make()
        texts = {
            "preparation.json": json.dumps(preparation.get_config(), indent=2),
            "versions.json": json.dumps(versions() | {"seed": config.seed}, indent=2),
            "config.toml": tomli_w.dumps(config.model_dump(exclude_none=True)),  # last: `is_run`
        }
        try:
            for name, text in texts.items():
                write_atomic(self.path / name, (text.rstrip() + "\n").encode())
        except OSError as e:
            raise unwritable(self.path, e) from None

    def preparation(self) -> Preparation:
        """The stored preparation; ConfigError names the file."""
        path = self.path / "preparation.json"
        try:
            return Preparation.from_config(json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, KeyError, TypeError) as e:
            raise ConfigError(f"{path}: not the preparation of a run: {e}") from None

    def log(self, text: str) -> None:
        """A line with the time, at the end of log.txt."""
        with open(self.path / "log.txt", "a", encoding="utf-8") as file:
            file.write(f"{time.strftime('%Y-%m-%dT%H:%M:%S')} {text}\n")


def unwritable(path: Path, error: OSError) -> CacheError:
    return CacheError(f"run folder {path}: {(error.strerror or str(error)).lower()}")


def new_folder(config: Config, given: str | None, resume: bool) -> RunFolder:
    """The folder of a run: given, or runs/<name>-<time>.

    ConfigError if it holds files already and `resume` is False.
    """
    path = (
        Path(given).expanduser()
        if given
        else Path("runs") / f"{config.name}-{time.strftime('%Y%m%d-%H%M%S')}"
    )
    try:
        if path.exists() and not path.is_dir():
            raise ConfigError(f"run folder {path}: is a file")
        if path.exists() and any(path.iterdir()) and not resume:
            if given:
                raise ConfigError(f"run folder {path}: not empty; --resume continues its run")
            path = _free(path)
    except OSError as e:
        raise unwritable(path, e) from None
    return RunFolder(path)


def _free(path: Path) -> Path:
    """The path with the first -2, -3, … that is not taken (two runs in the same second)."""
    n = 2
    while (other := path.with_name(f"{path.name}-{n}")).exists():
        n += 1
    return other


def is_run(path: str | Path) -> bool:
    """A folder that a run made."""
    return (Path(path) / "config.toml").is_file()
