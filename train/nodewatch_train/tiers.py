"""Checkpoints in the nodes' own storage, memory or NVMe, each rank's part also on a peer node: saved often, soon read again.

Each rank keeps its part of a save, a share, as a checkpoint directory of its own with its own manifest:

    DIRECTORY/<hash of the checkpoint directory's path>/share-<rank>/step-<8 digits>/    what this node's rank wrote
                                                        copy-<rank>/step-<8 digits>/     what a rank of another node sent

A save stands when every rank has committed its share and every copy; the one before is kept until then. All shares of a save
have its number (`extra.save`), so that shares of two saves of the same step are never taken for one. The flow is in
docs/training.md.
"""

import hashlib
import os
import secrets
import shutil
import socket
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.planner import LoadPlan, LoadPlanner
from torch.futures import Future

from nodewatch_train import manifest
from nodewatch_train.choice import say
from nodewatch_train.manifest import CheckpointError, FileEntry, Manifest
from nodewatch_train.together import Together
from nodewatch_train.transfer import Parcel, copy_file, exchange

METADATA = ".metadata"


@dataclass(frozen=True, slots=True, kw_only=True)
class LocalTier:
    """A directory of each node: in memory (/dev/shm/...) or on its own disks.

    peer: whether each share also goes to a rank of the next node. flush_s: least seconds between the saves that go on to the
    checkpoint directory; each save that finds the one before gone on, with 0.
    """

    directory: Path
    peer: bool = True
    flush_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """A share as its holder sees it: `place` is the node, `rank` the one that wrote it."""

    place: str
    path: Path
    step: int
    save: str
    rank: int
    world_size: int
    model: str
    files: Mapping[str, tuple[int, str]]


@dataclass(slots=True, kw_only=True)
class Found:
    """A save all of whose shares verify: by rank, where each is; and the manifest of rank 0's share."""

    manifest: Manifest
    shares: Mapping[int, Held]
    places: list[str] = field(default_factory=list)


class Shares:
    """One rank's part in it. Every method is called by all ranks together, and raises CheckpointError on all."""

    def __init__(self, tier: LocalTier, *, root: Path, together: Together) -> None:
        self._tier = tier
        self._all = together
        key = hashlib.sha256(str(root.resolve()).encode()).hexdigest()[:16]
        self._home = tier.directory / key
        self._pinned: set[int] = set()
        self._stands: int | None = None
        with suppress(OSError):  # said at the first save
            self._home.mkdir(parents=True, exist_ok=True)
        host = os.environ.get("SLURMD_NODENAME") or socket.gethostname()
        self._place = f"{host}:{tier.directory.resolve()}"
        self._places = together.gather(self._place)
        self._peers = peers_of(self._places) if tier.peer else {}
        if tier.peer and not self._peers and together.rank == 0:
            say("all ranks are on one node: its storage has no copy on another")

    def begin(self, step: int) -> Path:
        """Where this rank's share is written; only the save that stands stays beside it. Raises on this rank alone."""
        mine = self._home / f"share-{self._all.rank}"
        for path in (mine, *self._copies_here()):
            self._clear(path)
        return _begin(mine, step)

    def commit(self, tmp: Path, step: int, extra: Mapping[str, Any], described: Mapping[str, FileEntry]) -> Path:
        """After all shares were written: commit this rank's and pass it on. Returns its path once the save stands."""
        where = tmp / METADATA
        metadata = self._all.on_rank_0(lambda: _read(where))
        save = self._all.on_rank_0(lambda: secrets.token_hex(8))

        def own() -> Path:
            if self._all.rank != 0:
                _write(where, metadata)
            marked = {**extra, "save": save, "rank": self._all.rank}
            return manifest.commit(tmp, step, world_size=self._all.world_size, extra=marked, described=described)

        paths = self._all.each(own)
        if self._peers:
            self._pass_on(step, paths)
        self._stands = step
        self._all.each(self._tidy)
        return paths[self._all.rank]

    def copy_to(self, path: Path, into: Path, *, together: Together) -> dict[str, FileEntry]:
        """The files of all shares into a directory that all ranks see; returns what they are, for its manifest.

        together: another group than that of the saves which go on meanwhile.
        """

        def own() -> dict[str, FileEntry]:
            found = manifest.verify(path, checksums=False).manifest
            if found is None:
                raise CheckpointError(f"{path} is no more what was written there")
            copied = {}
            with ThreadPoolExecutor(2) as writer:
                for name, entry in found.files.items():
                    if name == METADATA and together.rank != 0:
                        continue
                    try:
                        copied[name] = copy_file(path / name, into / name, writer=writer)
                    except OSError as error:
                        raise CheckpointError(
                            f"{path} cannot be copied to {into}: {error.strerror or error}"
                        ) from error
                    if copied[name] != entry:
                        raise CheckpointError(f"{path / name} does not match its checksum")
            return copied

        return {name: entry for share in together.each(own) for name, entry in share.items()}

    def pin(self, step: int) -> None:
        """Keep a save that is being copied on."""
        self._pinned.add(step)

    def unpin(self, step: int) -> None:
        self._pinned.discard(step)

    def newest(self, *, above: int, model: str) -> Found | None:
        """The newest save of a step above `above` all of whose shares are there and verify, own or copied."""
        held = [share for rank in self._all.gather(self._look()) for share in rank]
        saves: dict[tuple[int, str], list[Held]] = {}
        for share in held:
            if share.step > above and share.model == model:
                saves.setdefault((share.step, share.save), []).append(share)
        for (step, _), shares in sorted(saves.items(), reverse=True):
            found = self._verified(shares)
            if found is not None:
                self._stands = step
                return found
            if self._all.rank == 0:
                say(f"step {step} in the nodes' own storage is passed over: not all of its shares are there and whole")
        return None

    def reader(self, found: Found) -> "ShareReader":
        """Reads that save, whatever is wanted of it on whichever rank."""
        return ShareReader(found, home=self._home, together=self._all, places=self._places)

    def _look(self) -> list[Held]:
        """What lies on this node; said by the first rank of it."""
        if self._places.index(self._place) != self._all.rank or not self._home.is_dir():
            return []
        held = []
        for path in sorted(self._home.glob("*-*/step-*")):
            found = manifest.verify(path, checksums=False).manifest
            if found is None or not isinstance(found.extra.get("rank"), int):
                continue
            held.append(
                Held(
                    place=self._place,
                    path=path,
                    step=found.step,
                    save=str(found.extra.get("save")),
                    rank=found.extra["rank"],
                    world_size=found.world_size,
                    model=str(found.extra.get("model")),
                    files={name: (entry.size, entry.sha256) for name, entry in found.files.items()},
                )
            )
        return held

    def _verified(self, shares: list[Held]) -> Found | None:
        wanted = range(shares[0].world_size)
        if {share.rank for share in shares} != set(wanted):
            return None
        # Spread over the ranks of the node that holds each.
        mine = [
            share
            for number, share in enumerate(shares)
            if share.place == self._place
            and self._ranks_of(share.place)[number % len(self._ranks_of(share.place))] == self._all.rank
        ]
        whole = {path: name for told in self._all.gather(self._check(mine)) for path, name in told.items()}
        chosen: dict[int, Held] = {}
        for share in shares:
            if (share.place, share.path) in whole:
                chosen.setdefault(share.rank, share)
        if set(chosen) != set(wanted):
            return None
        return Found(manifest=whole[chosen[0].place, chosen[0].path], shares=chosen)

    def _check(self, shares: list[Held]) -> dict[tuple[str, Path], Manifest]:
        """Those that verify to the last byte."""
        checked = ((share, manifest.verify(share.path)) for share in shares)
        return {(share.place, share.path): told.manifest for share, told in checked if told.manifest is not None}

    def _ranks_of(self, place: str) -> list[int]:
        return [rank for rank, at in enumerate(self._places) if at == place]

    def _copies_here(self) -> list[Path]:
        senders = [sender for sender, receiver in self._peers.items() if receiver == self._all.rank]
        return [self._home / f"copy-{sender}" for sender in senders]

    def _pass_on(self, step: int, paths: list[Path]) -> None:
        """This rank's share to its peer, and the peer's that has this one here."""
        sizes = self._all.gather({path.name: path.stat().st_size for path in paths[self._all.rank].iterdir()})

        def places() -> dict[int, Path]:
            found = {}
            for sender, receiver in self._peers.items():
                if receiver == self._all.rank:
                    found[sender] = _begin(self._home / f"copy-{sender}", step)
            return found

        into = {sender: path for found in self._all.each(places) for sender, path in found.items()}
        parcels = [
            Parcel(
                sender=sender,
                receiver=self._peers[sender],
                size=size,
                source=paths[sender] / name,
                target=into[sender] / name,
            )
            for sender in self._peers
            for name, size in sorted(sizes[sender].items())
        ]
        received = exchange(parcels, rank=self._all.rank, group=self._all.group)

        def adopt() -> None:
            for sender, receiver in self._peers.items():
                if receiver == self._all.rank:
                    found = manifest.verify_files(into[sender], checksums=False)
                    same = found.manifest is not None and all(
                        received.get(into[sender] / name) == entry for name, entry in found.manifest.files.items()
                    )
                    if not same:
                        raise CheckpointError(f"rank {sender}'s share of step {step} came to rank {receiver} damaged")
                    manifest.adopt(into[sender], step)

        self._all.each(adopt)

    def _tidy(self) -> None:
        """The first rank of each node deletes what ranks left there that are elsewhere now: a newer save stands."""
        if self._places.index(self._place) != self._all.rank:
            return
        used = {f"share-{rank}" for rank in self._ranks_of(self._place)}
        used |= {f"copy-{sender}" for sender, to in self._peers.items() if self._places[to] == self._place}
        for path in self._home.iterdir():
            if path.name not in used:
                shutil.rmtree(path, ignore_errors=True)

    def _clear(self, directory: Path) -> None:
        """What does not stand is away: saves that were not completed, and those of a branch that the run left."""
        if directory.is_dir():
            manifest.sweep(directory)
            for path in manifest.checkpoints(directory):
                if manifest.step_of(path) not in {self._stands, *self._pinned}:
                    shutil.rmtree(manifest.set_aside(path), ignore_errors=True)


class ShareReader(FileSystemReader):
    """Reads a save from its shares: what lies on this node from there, the rest from the rank that has it.

    Whole files are fetched, once for each node, and verified on arrival.
    """

    def __init__(self, found: Found, *, home: Path, together: Together, places: list[str]) -> None:
        self._shares, self._all, self._places = found.shares, together, places
        self._first = places.index(places[together.rank])
        name = f".tmp-read-{together.on_rank_0(lambda: secrets.token_hex(6))}"
        self._directory = home / name
        self._files = {name: share for share in found.shares.values() for name in share.files if name != METADATA}
        self._files[METADATA] = found.shares[0]
        together.each(self._make)
        self._fetch({METADATA})
        super().__init__(self._directory)

    def read_data(self, plan: LoadPlan, planner: LoadPlanner) -> Future[None]:
        self._fetch({self.storage_data[item.storage_index].relative_path for item in plan.items})
        return super().read_data(plan, planner)

    def close(self) -> None:
        """Delete what was fetched; after all ranks have read."""
        self._all.gather(None)
        if self._first == self._all.rank:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _make(self) -> None:
        if self._first == self._all.rank:
            try:
                self._directory.mkdir(parents=True)
            except OSError as error:
                raise CheckpointError(f"{self._directory} cannot be made ({error.strerror})") from error

    def _fetch(self, names: set[str]) -> None:
        wanted: dict[int, set[str]] = {}
        for rank, theirs in enumerate(self._all.gather(names)):
            wanted.setdefault(self._places.index(self._places[rank]), set()).update(theirs)
        for name in wanted.get(self._all.rank, ()):
            if self._files[name].place == self._places[self._all.rank]:
                (self._directory / name).symlink_to(self._files[name].path / name)
        parcels = [
            Parcel(
                sender=self._places.index(share.place),
                receiver=rank,
                size=share.files[name][0],
                source=share.path / name,
                target=self._directory_of(rank) / name,
            )
            for rank, theirs in sorted(wanted.items())
            for name in sorted(theirs)
            if (share := self._files[name]).place != self._places[rank]
        ]
        received = exchange(parcels, rank=self._all.rank, group=self._all.group) if parcels else {}

        def check() -> None:
            for parcel in parcels:
                if parcel.receiver != self._all.rank:
                    continue
                entry, name = received.get(parcel.target), parcel.target.name
                if entry is None or (entry.size, entry.sha256) != self._files[name].files[name]:
                    raise CheckpointError(f"{name} did not come whole from rank {parcel.sender}")

        self._all.each(check)

    def _directory_of(self, rank: int) -> Path:
        return self._directory if rank == self._all.rank else Path()  # only the receiver looks at it


def peers_of(places: list[str]) -> dict[int, int]:
    """Which rank keeps each rank's copy: the one of the same number on the next node. Empty on one node."""
    nodes = list(dict.fromkeys(places))
    if len(nodes) < 2:
        return {}
    ranks = {node: [rank for rank, at in enumerate(places) if at == node] for node in nodes}
    peers = {}
    for number, node in enumerate(nodes):
        others = ranks[nodes[(number + 1) % len(nodes)]]
        for index, rank in enumerate(ranks[node]):
            peers[rank] = others[index % len(others)]
    return peers


def _begin(directory: Path, step: int) -> Path:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CheckpointError(f"the node's own directory {directory} cannot be made ({error.strerror})") from error
    return manifest.begin(directory, step)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror})") from error


def _write(path: Path, content: bytes) -> None:
    try:
        path.write_bytes(content)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be written ({error.strerror})") from error
