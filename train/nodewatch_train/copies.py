"""Copies of whole checkpoints elsewhere: another file system, S3, whatever a command can reach.

A copy is made by rank 0, in the background, of a checkpoint that is committed; it is trusted only after it was fetched and
verified here. A copy that fails is said and does not stop the run: the checkpoint itself is there.
Standard library only; boto3 is imported by S3Copy alone, when it is made.
"""

import secrets
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from nodewatch_train import manifest
from nodewatch_train.manifest import CheckpointError


class Copy(Protocol):
    """Somewhere that checkpoints can be put and fetched by name. As narrow as that: a site may bring its own."""

    def put(self, checkpoint: Path) -> None:
        """Copy a committed checkpoint. Says what fails, and raises nothing for it."""

    def names(self) -> list[str]:
        """The names of what is there, whole or not. Raises CheckpointError when that cannot be told."""

    def fetch(self, name: str, into: Path) -> None:
        """Bring the files of one into an empty directory. Raises CheckpointError."""


def newest_copy(root: Path, newest: Path | None, copies: Sequence[Copy], *, say: Callable[[str], None]) -> Path | None:
    """The newest checkpoint of all: `newest` of `root`, or a newer one that could be fetched into `root` and verifies."""
    least = -1 if newest is None else manifest.step_of(newest)
    for copy in copies:
        try:
            names = sorted({name for name in copy.names() if manifest.is_name(name)}, reverse=True)
        except CheckpointError as error:
            say(str(error))
            continue
        for name in names:
            if manifest.step_of(Path(name)) <= least:
                break
            try:
                newest = _fetch(root, copy, name)
            except CheckpointError as error:
                say(f"skipped the copy of {name}: {error}")
                continue
            say(f"{name} was fetched from a copy")
            least = manifest.step_of(newest)
            break
    return newest


def _fetch(root: Path, copy: Copy, name: str) -> Path:
    into = root / f".tmp-fetched-{secrets.token_hex(6)}"
    into.mkdir()
    try:
        copy.fetch(name, into)
        verification = manifest.verify_files(into)
        if verification.manifest is None:
            raise CheckpointError(verification.reason.replace(into.name, name))
        return manifest.adopt(into, verification.manifest.step)
    finally:
        shutil.rmtree(into, ignore_errors=True)


class DirectoryCopy:
    """Another directory, such as a shared file system behind a checkpoint directory on local disks or in memory.

    keep: how many verified checkpoints stay there.
    """

    def __init__(self, directory: Path, *, keep: int = 2) -> None:
        self._directory = directory
        self._keep = keep

    def put(self, checkpoint: Path) -> None:
        into = self._directory / f".tmp-copied-{secrets.token_hex(6)}"
        try:
            self._directory.mkdir(parents=True, exist_ok=True)
            shutil.copytree(checkpoint, into)
            for path in into.iterdir():
                manifest.flush(path)
            manifest.flush(into)
            step = manifest.step_of(checkpoint)
            manifest.adopt(into, step)
            manifest.prune(self._directory, self._keep, up_to=step)
        except (OSError, shutil.Error, CheckpointError) as error:
            _say(f"{checkpoint.name} was not copied to {self._directory}: {error}")
            shutil.rmtree(into, ignore_errors=True)

    def names(self) -> list[str]:
        return [path.name for path in manifest.checkpoints(self._directory)] if self._directory.is_dir() else []

    def fetch(self, name: str, into: Path) -> None:
        try:
            shutil.copytree(self._directory / name, into, dirs_exist_ok=True)
            for path in into.iterdir():
                manifest.flush(path)
        except (OSError, shutil.Error) as error:
            raise CheckpointError(f"it cannot be read from {self._directory} ({error})") from error


class CommandCopy:
    """A site's own commands, given as argument lists in which {path} and {name} are replaced; `names` prints one a line.

    CommandCopy(put=["aws", "s3", "cp", "--recursive", "{path}", "s3://bucket/run/{name}"], ...)
    """

    def __init__(
        self, *, put: Sequence[str], names: Sequence[str], fetch: Sequence[str], deadline_s: float = 3600.0
    ) -> None:
        self._put, self._names, self._fetch = put, names, fetch
        self._deadline_s = deadline_s

    def put(self, checkpoint: Path) -> None:
        try:
            self._run(self._put, path=str(checkpoint), name=checkpoint.name)
        except CheckpointError as error:
            _say(f"{checkpoint.name} was not copied: {error}")

    def names(self) -> list[str]:
        # `aws s3 ls` prints "PRE step-00000020/"; a plain list prints the name.
        return [line.split()[-1].rstrip("/") for line in self._run(self._names).splitlines() if line.strip()]

    def fetch(self, name: str, into: Path) -> None:
        self._run(self._fetch, path=str(into), name=name)

    def _run(self, command: Sequence[str], **values: str) -> str:
        argv = [word.format(**values) if values else word for word in command]
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=self._deadline_s, check=False)
        except (OSError, subprocess.TimeoutExpired) as error:
            raise CheckpointError(f"{argv[0]} could not be run to its end ({error})") from error
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or ["it says nothing"])[-1]
            raise CheckpointError(f"{argv[0]} ended with {done.returncode}: {last}")
        return done.stdout


class S3Copy:
    """A prefix of an S3 bucket. client: boto3's, for tests and for other endpoints; made from the environment otherwise.

    The manifest is put last, so that what is there with a manifest is complete.
    """

    def __init__(self, bucket: str, prefix: str, *, client: Any = None) -> None:
        if client is None:
            import boto3

            client = boto3.client("s3")
        self._client = client
        self._bucket = bucket
        self._prefix = prefix.strip("/")

    def put(self, checkpoint: Path) -> None:
        try:
            files = sorted(checkpoint.iterdir(), key=lambda path: (path.name == manifest.MANIFEST, path.name))
            for path in files:
                self._client.upload_file(str(path), self._bucket, f"{self._prefix}/{checkpoint.name}/{path.name}")
        except Exception as error:  # boto3 has many roots of errors, and none may stop the run
            _say(f"{checkpoint.name} was not copied to s3://{self._bucket}/{self._prefix}: {error}")

    def names(self) -> list[str]:
        keys = self._keys(f"{self._prefix}/")
        return [key.split("/")[-2] for key in keys if key.endswith(f"/{manifest.MANIFEST}")]

    def fetch(self, name: str, into: Path) -> None:
        for key in self._keys(f"{self._prefix}/{name}/"):
            with self._telling():
                self._client.download_file(self._bucket, key, str(into / key.rpartition("/")[2]))

    def _keys(self, prefix: str) -> list[str]:
        with self._telling():
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._bucket, Prefix=prefix)
            return [entry["Key"] for page in pages for entry in page.get("Contents", ())]

    @contextmanager
    def _telling(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # boto3 has many roots of errors
            raise CheckpointError(f"s3://{self._bucket}/{self._prefix} cannot be read: {error}") from error


def _say(sentence: str) -> None:
    print(f"checkpoint: {sentence}", file=sys.stderr, flush=True)
