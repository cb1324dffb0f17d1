"""Searches on a Ray cluster of several nodes with disks of their own: spread, loss of a node, what is computed once.

The nodes are processes of this machine; their workers are told that they do not share the driver's disk.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pandas as pd
import pytest
import ray

from search.config import Config
from search.driver.cluster import our_code, ray_session
from search.workers.depot import CHUNK_BYTES, Depot, fetch_file, fetch_folder, send
from search.workers.driver_files import DriverFiles
from search.workers.node import OncePerCluster, with_inputs_here
from spaces import sharing
from spaces.errors import UserError

Configure = Callable[..., Config]


class Inline:
    """A depot that is called here, with the interface of an actor's handle."""

    def __init__(self) -> None:
        self.actor = Depot()

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=getattr(self.actor, name))


@pytest.fixture
def depot(monkeypatch: pytest.MonkeyPatch) -> Inline:
    monkeypatch.setattr(ray, "get", lambda value: value)
    return Inline()


@pytest.fixture(autouse=True)
def _nothing_shared_afterwards() -> Iterator[None]:
    yield
    sharing.share(None)


def test_files_travel_whole_whatever_their_size(depot: Inline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("search.workers.depot.CHUNK_BYTES", 5)
    assert CHUNK_BYTES > 1_000_000
    source = tmp_path / "here"
    source.mkdir()
    sizes = {"none": 0, "five": 5, "eleven": 11}
    for name, size in sizes.items():
        (source / name).write_bytes(bytes(range(size)))
    send(depot, {name: source / name for name in sizes}, str(tmp_path / "there"))
    assert {f.name: f.read_bytes() for f in (tmp_path / "there").iterdir()} == {
        name: bytes(range(size)) for name, size in sizes.items()
    }
    fetch_folder(depot, str(tmp_path / "there"), tmp_path / "back")
    assert {f.name: f.stat().st_size for f in (tmp_path / "back").iterdir()} == sizes
    assert fetch_file(depot, str(tmp_path / "gone"), tmp_path / "x") is None
    fetch_folder(depot, str(tmp_path / "gone"), tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_worker_that_does_not_see_the_drivers_disk_delivers_and_gets_through_the_depot(
    depot: Inline, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    far = DriverFiles(str(tmp_path / "inbox"), str(mark), depot)
    assert not far.shared
    work = tmp_path / "work"
    (work / "sub").mkdir(parents=True)
    (work / "state").write_text("weights")
    (work / "sub" / "part").write_text("more")
    mine = Path(far.take(work))
    assert (mine / "sub" / "part").read_text() == "more"
    alone = Path(far.take(work, "state"))
    assert [f.name for f in alone.iterdir()] == ["state"]
    assert far.give(str(mine), "state", tmp_path / "got") == tmp_path / "got" / "state"
    assert far.give(str(mine), "other", tmp_path / "got") is None
    mark.touch()
    assert far.shared
    assert far.give(str(mine), "state", tmp_path / "unused") == mine / "state"
    assert sorted(f.name for f in Path(far.take(work)).iterdir()) == ["state", "sub"]


def test_what_a_cache_lacks_is_computed_by_one_worker_of_all(depot: Inline, tmp_path: Path) -> None:
    computed: list[str] = []

    def worker(name: str, cache: Path, far: bool) -> None:
        shared = OncePerCluster(depot, cache, str(tmp_path / "driver"), far=far)
        file = cache / "factors" / "key"
        if not file.exists():
            with shared.making(file):
                if not file.exists():
                    computed.append(name)
                    time.sleep(0.3)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text("found")
        assert file.read_text() == "found"

    places = [("a", tmp_path / "far-1", True), ("b", tmp_path / "far-2", True), ("c", tmp_path / "driver", False)]
    threads = [threading.Thread(target=worker, args=place) for place in places]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert depot.actor.made() == {"factors/key": 1}
    with OncePerCluster(depot, tmp_path / "driver", "unused").making(tmp_path / "elsewhere"):
        pass  # what lies outside of the cache is nobody else's business
    assert list(depot.actor.made()) == ["factors/key"]


def test_a_claim_is_given_to_another_when_its_worker_was_not_heard_of(monkeypatch: pytest.MonkeyPatch) -> None:
    depot = Depot()
    assert depot.claim("k", "first")
    assert depot.claim("k", "first")
    assert not depot.claim("k", "second")
    monkeypatch.setattr("search.workers.depot.CLAIM_S", 0.0)
    assert depot.claim("k", "second")


def test_a_chunk_that_is_sent_again_changes_nothing(tmp_path: Path) -> None:
    depot, file = Depot(), tmp_path / "draft" / "weights"
    for chunk, offset in ((b"first", 0), (b"first", 0), (b"second", 5), (b"second", 5)):
        depot.write(str(file), chunk, offset)
    assert file.read_bytes() == b"firstsecond"


def test_inputs_reach_a_node_by_the_paths_in_the_config(depot: Inline, configure: Configure, tmp_path: Path) -> None:
    config = configure()
    here = with_inputs_here(config, depot, tmp_path / "inputs")
    for split in ("train", "validation", "test"):
        brought, given = Path(getattr(here.task.data, split)), Path(getattr(config.task.data, split))
        assert tmp_path in brought.parents
        assert brought.read_bytes() == given.read_bytes()
    assert (Path(here.teacher.model) / "model.safetensors").is_file()
    assert here.search == config.search


def test_several_files_patterns_and_folders_reach_a_node_too(
    depot: Inline, configure: Configure, tmp_path: Path
) -> None:
    from search.data import load_data

    texts = tmp_path / "texts"
    for name, text in (("part-1.txt", "w1"), ("part-2.txt", "w2"), ("more/part-1.txt", "w3"), ("other.txt", "w9")):
        (texts / name).parent.mkdir(parents=True, exist_ok=True)
        (texts / name).write_text(text)
    given = configure()
    files = (str(texts / "part-*.txt"), str(texts / "more" / "part-1.txt"))
    data = given.task.data.model_copy(update={"train": (given.task.data.train,), "test": None})
    config = given.model_copy(update={"task": given.task.model_copy(update={"transfer": files, "data": data})})
    here = with_inputs_here(config, depot, tmp_path / "inputs")
    found = load_data(here.task)
    assert found.transfer is not None
    assert list(found.transfer.text or ()) == ["w1", "w2", "w3"]
    assert found.hashes == load_data(config.task).hashes
    assert str(tmp_path / "inputs") in str(here.task.data.train)


def test_a_nodes_folder_outlives_its_search_only_until_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.workers import node

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(node, "_used", {})
    first = node.node_folder("/run/ray/.mark-1")
    second = node.node_folder("/run/ray/.mark-2")
    assert first.exists()  # a worker of it lives: this one
    node._used.pop(first).close()
    third = node.node_folder("/run/ray/.mark-3")
    assert (first.exists(), second.exists(), third.exists()) == (False, True, True)
    for stream in node._used.values():
        stream.close()


def test_our_code_is_four_packages_wherever_they_are_installed() -> None:
    assert [Path(folder).name for folder in our_code()] == ["spaces", "compressors", "analysis", "search"]
    assert all((Path(folder) / "__init__.py").is_file() for folder in our_code())


def test_a_client_address_is_refused_with_what_to_do(configure: Configure) -> None:
    with (
        pytest.raises(UserError, match=r"ray://head:10001.*ray job submit"),
        ray_session(configure(), "ray://head:10001"),
    ):
        pass


@pytest.fixture
def nodes() -> Iterator[Any]:
    """A head without cores, on which the driver is, and two nodes of one core each."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 100_000_000}
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, **small})
    for _ in range(2):
        cluster.add_node(num_cpus=1, **small)
    yield cluster
    ray.shutdown()
    cluster.shutdown()


@pytest.mark.slow
def test_a_search_spreads_over_blind_nodes_survives_a_loss_uses_one_that_joins_and_computes_outputs_once(
    nodes: Any, configure: Configure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from search.driver import begin, launch, tune
    from search.workers import worker

    monkeypatch.chdir(tmp_path)  # workers look first in the driver's folder where they have it too, as here they would
    small = {"object_store_memory": 100_000_000}
    places = tmp_path / "places"
    places.mkdir()

    def noted(config: dict[str, Any], work: worker.WorkSpec) -> None:
        node = ray.get_runtime_context().get_node_id()
        (places / f"{config['trial']}.{node}.{time.time_ns()}").write_text(str(worker.__file__))
        worker.train_trial(config, work)

    monkeypatch.setattr(tune, "train_trial", noted)
    real_files, real_run = begin.driver_files, tune.run_trials
    monkeypatch.setattr(begin, "driver_files", lambda folder: replace(real_files(folder), mark=f"/no-{uuid4().hex}"))
    made: list[dict[str, int]] = []

    def run_trials(conductor: Any, work: Any, *rest: Any) -> None:
        real_run(conductor, work, *rest)
        made.append(ray.get(work.driver.depot.made.remote()))

    def seen() -> set[str]:
        return {f.name.split(".")[1] for f in places.iterdir()}

    monkeypatch.setattr(tune, "run_trials", run_trials)
    config = configure(
        "search.trials=7", "fidelity.max_steps=40", "fidelity.rungs=[0.25, 0.5, 1.0]", "early_stopping.enabled=false"
    )
    found: list[Any] = []
    search = threading.Thread(target=lambda: found.append(launch.run_search(config, address=nodes.address)))
    search.start()
    while search.is_alive() and len(seen()) < 2:
        time.sleep(0.2)
    nodes.remove_node(nodes.worker_nodes.copy().pop(), allow_graceful=False)
    nodes.add_node(num_cpus=1, **small)
    search.join()
    assert found[0].state == "FINISHED"
    assert list(found[0].trials["state"]) == ["COMPLETE"] * 7
    assert len(seen()) == 3  # the one that joined worked too
    assert all("runtime_resources" in f.read_text() for f in places.iterdir())  # our code came from the driver
    folder = Path(config.run.dir)
    assert pd.read_parquet(folder / "front.parquet")["latency_ms_final"].notna().any()
    assert (folder / "teacher" / "model.safetensors").is_file()
    ended = Counter(json.loads(line)["trial"] for line in (folder / "trials.jsonl").read_text().splitlines())
    assert set(ended.values()) == {1}
    outputs = [name for name in made[0] if name.startswith("targets/")]
    assert outputs
    assert all(made[0][name] == 1 for name in [*outputs, *(n for n in made[0] if n.startswith("calibrations/"))])
    assert max(made[0].values()) == 1  # no decomposition was computed twice either


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_search_whose_cluster_is_gone_ends_and_goes_on_with_the_next_one(
    configure: Configure, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The head is killed with all that runs on it, and another cluster started: the same command goes on."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("RAY_worker_niceness", "0")
    small = {"num_cpus": 1, "object_store_memory": 100_000_000}
    config = configure("search.trials=3", "fidelity.max_steps=8", "search.max_concurrent=1")
    folder = Path(config.run.dir)
    file = folder.parent / "head.yaml"
    file.write_text(config.to_yaml())
    impatient = {**os.environ, "RAY_gcs_rpc_server_reconnect_timeout_s": "10"}

    def command(address: str) -> subprocess.Popen[str]:
        words = [sys.executable, "-m", "paredown", "search", str(file), "--address", address]
        return subprocess.Popen(words, env=impatient, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)

    def rows() -> list[str]:
        lines = (folder / "trials.jsonl").read_text().splitlines() if (folder / "trials.jsonl").exists() else []
        return [json.loads(line)["trial"] for line in lines]

    def started() -> Any:
        for _ in range(5):
            with suppress(Exception):  # on a loaded machine a node may take longer than Ray's patience
                return Cluster(initialize_head=True, head_node_args=small)
        pytest.skip("no Ray cluster starts here within its 30 s")

    first = started()
    search = command(first.address)
    while not rows():
        assert search.poll() is None
        time.sleep(0.2)
    first.shutdown()
    said, _ = search.communicate(timeout=600)
    assert search.returncode != 0, said
    before = rows()
    second = started()
    again = command(second.address)
    said, _ = again.communicate(timeout=900)
    second.shutdown()
    assert again.returncode == 0, said
    assert f"restored {len(before)}, requeued" in said
    assert sorted(rows()) == [f"t{number:05d}" for number in range(3)]
    assert rows()[: len(before)] == before
