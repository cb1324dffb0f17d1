"""Everything that asks Ray for something outside of Tune: the session, and tasks before and after the trials."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from search.config import Config
from search.workers.depot import start_depot
from search.workers.driver_files import INBOX, DriverFiles
from search.workers.hardware import check_hardware, on_hardware
from search.workers.worker import WorkSpec
from spaces.errors import UserError

if TYPE_CHECKING:
    from search.driver.live import Steps

CONNECT_S = 10.0
"""How long an address has to answer."""

UNWIND_S = "60"
"""How long a worker waits for a stopped trial to let go before its next one is given up, in Ray's words 2 s."""

CODE = ("spaces", "compressors", "analysis", "search")
"""The packages that run in workers."""


@contextmanager
def ray_session(config: Config, address: str | None) -> Iterator[None]:
    """Connect to a Ray cluster, or start Ray here and end it afterwards.

    Inside of `ray job submit` the environment names the cluster; a cluster that only happens to run on this machine is
    left alone.
    """
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU asked for, none seen
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # Ray Tune's own progress boxes
    if address and address.startswith("ray://"):
        raise UserError(
            f"--address: {address!r} leaves the driver, its run folder and the meter outside of the cluster; "
            "start the command on a node (`ray job submit`) with --address auto"
        )
    if address:
        refuse_silent(address)
    import ray

    settings = {"TOKENIZERS_PARALLELISM": "false", "OMP_WAIT_POLICY": "passive"}
    settings["TUNE_FUNCTION_THREAD_TIMEOUT_S"] = UNWIND_S
    environment: dict[str, Any] = {"env_vars": settings}
    if address:
        environment["py_modules"] = our_code()
    # "local": without an address Ray would join whatever cluster was started on this machine last
    options: dict[str, Any] = {"address": address} if address else {"address": "local", "include_dashboard": False}
    try:
        ray.init(logging_level=logging.ERROR, log_to_driver=False, runtime_env=environment, **options)
    except (ConnectionError, ValueError) as error:
        if not address:
            raise
        raise UserError(
            f"--address: no Ray cluster answers at {address!r} ({str(error).splitlines()[0]}); one that asks for a "
            "token needs RAY_AUTH_MODE=token, and the token in RAY_AUTH_TOKEN or ~/.ray/auth_token"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def refuse_silent(address: str) -> None:
    """Raise UserError where nothing listens at HOST:PORT: Ray would try for minutes."""
    host, colon, port = address.rpartition(":")
    if not colon:  # a word of Ray's own: auto, local
        return
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S):
            return
    except (OSError, ValueError, OverflowError) as error:
        raise UserError(
            f"--address: no Ray cluster answers at {address!r} ({error}); give HOST:PORT or auto"
        ) from error


def our_code() -> list[str]:
    """Return the packages that workers need, as folders: Ray takes them to every node, also from an installed wheel."""
    return [str(Path(str(import_module(name).__file__)).parent) for name in CODE]


def driver_files(folder: Path) -> DriverFiles:
    """Return how workers reach the driver's disk, where ``folder`` (the run's ``ray/``) is.

    On a cluster an actor on the driver's node gives and takes files; nodes that share the disk need it for nothing but
    computing what all need once.
    """
    import ray

    inbox = folder / INBOX
    inbox.mkdir(parents=True, exist_ok=True)
    if not _on_cluster():
        return DriverFiles(str(inbox))
    return _through_depot(folder, inbox, ray.get_runtime_context().get_job_id())


@lru_cache(maxsize=1)
def _through_depot(folder: Path, inbox: Path, job: str) -> DriverFiles:
    """Return what ``driver_files`` does on a cluster, the same for all of a ``job``."""
    import ray

    mark = folder / f".mark-{uuid4().hex}"
    for old in folder.glob(".mark-*"):
        old.unlink(missing_ok=True)
    mark.touch()
    return DriverFiles(str(inbox), str(mark), start_depot(ray.get_runtime_context().get_node_id()))


def _on_cluster() -> bool:
    import ray

    return bool(ray.get_runtime_context().runtime_env.get("py_modules"))


def check_places(config: Config, note: Callable[[str], None]) -> None:
    """Say before anything is trained that a trial fits nowhere, or that a kind of ``latency.hardware`` is not there."""
    max_concurrent(config, note)
    check_hardware(config, on_cluster=_on_cluster(), note=note)


def max_concurrent(config: Config, note: Callable[[str], None] = lambda sentence: None) -> int | None:
    """Return how many trials run at once: as many as cores and GPUs hold, or as the config says.

    On a cluster nodes come and go, so that there ``auto`` is no number (None). Where no node has room for one trial,
    Ray would wait for it without a word: on this machine that is a UserError, on a cluster a ``note``.
    """
    import ray

    asked = config.search.max_concurrent
    there: dict[str, float] = ray.cluster_resources()
    places = [there.get("CPU", 0) / config.resources.cpu]
    if config.resources.gpu:
        places.append(there.get("GPU", 0) / config.resources.gpu)
    if not _fitting(config):
        nodes = sorted({f"{n.get('CPU', 0):g} CPU and {n.get('GPU', 0):g} GPU" for n in _nodes()})
        sentence = (
            f"resources: a trial asks for {config.resources.cpu:g} CPU and {config.resources.gpu:g} GPU; "
            f"there are {', '.join(nodes[:3]) or 'no nodes'}{' ...' if len(nodes) > 3 else ''}"
        )
        if not _on_cluster():
            raise UserError(sentence)
        note(f"{sentence}, so that the search waits for nodes to join")
    if asked != "auto":
        return int(asked)
    return None if _on_cluster() else math.floor(min(places))


def _fitting(config: Config) -> list[dict[str, float]]:
    """Return the resources of every node that holds a trial: what several nodes have together holds none."""
    asked = {"CPU": config.resources.cpu, "GPU": config.resources.gpu}
    return [node for node in _nodes() if all(node.get(name, 0.0) >= amount for name, amount in asked.items())]


def _nodes() -> list[dict[str, float]]:
    import ray

    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def remote_facts(config: Config, work: WorkSpec, steps: Steps) -> dict[str, Any]:
    """Run the preparation as a task on all cores of a node, and a GPU where trials have one; follow its progress."""
    import ray

    from search.workers.prepare import prepare_steps

    cores = math.floor(max((node.get("CPU", 0) for node in _fitting(config)), default=config.resources.cpu)) or 1
    options: dict[str, Any] = {"num_cpus": cores, "max_calls": 1, "num_returns": "streaming"}
    if config.resources.gpu:
        options["num_gpus"] = min(1.0, config.resources.gpu)
    task: Any = ray.remote(**options)(prepare_steps)
    facts: dict[str, Any] = {}
    for reference in task.remote(work, cores):
        event = ray.get(reference)
        if "progress" in event:
            steps(*event["progress"])
        elif "user_error" in event:
            raise UserError(event["user_error"])
        else:
            facts = event["facts"]
    return facts


def remote_calls(
    config: Config,
    call: Callable[..., Any],
    arguments: Sequence[tuple[Any, ...]],
    steps: Steps,
    what: str,
    hardware: str | None = None,
) -> list[Any]:
    """Call ``call`` once per entry of ``arguments``, each on what one trial occupies, and return the results.

    On nodes of a kind of ``hardware`` where one is named.
    """
    import ray

    options: dict[str, Any] = {"num_cpus": config.resources.cpu, "num_gpus": config.resources.gpu}
    if hardware is not None:
        options |= on_hardware(hardware, config.resources.gpu)
    task: Any = ray.remote(**options)(call)
    waiting = [task.remote(*each) for each in arguments]
    results = []
    steps(what, 0, len(waiting))
    for done, reference in enumerate(waiting, start=1):
        results.append(ray.get(reference))
        steps(what, done, len(waiting))
    return results
