"""The templates of ``examples/cluster``: their files are what their systems read, their commands are ours."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "examples" / "cluster"


def parsed(command: str) -> dict[str, Any]:
    """Return the arguments of a `paredown search` command as the CLI understands them; it exits on a wrong one."""
    import typer.main

    from search.cli.app import app

    program, name, *words = shlex.split(command)
    assert (program, name) == ("paredown", "search")
    group: Any = typer.main.get_command(app)
    context = group.commands[name].make_context(name, words)
    return dict(context.params)


def fake(folder: Path, name: str, script: str) -> None:
    """Put a program that notes its arguments into ``folder``."""
    file = folder / name
    file.write_text(f"#!/usr/bin/env bash\n{script}\n")
    file.chmod(0o755)


def calls(folder: Path) -> list[list[str]]:
    return [json.loads(line) for line in (folder / "calls").read_text().splitlines()]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in front of PATH whose programs note how they were called."""
    note = """python3 -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$(basename "$0")" "$@" >> "$CALLS" """
    for name in ("ray", "srun", "paredown"):
        fake(tmp_path, name, note)
    fake(tmp_path, "scontrol", "echo node-a; echo node-b")
    fake(tmp_path, "sleep", "true")
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    return tmp_path


def test_submit_sends_the_configs_folder_and_a_command_of_ours(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PAREDOWN", "paredown[cluster]==0.1.0")
    subprocess.run([FOLDER / "submit", "configs/my.yaml", "s3://b/run", "search.trials=9"], check=True)
    ((program, *words),) = calls(programs)
    assert [program, *words[:4]] == ["ray", "job", "submit", "--working-dir", "configs"]
    assert json.loads(words[5]) == {"pip": ["paredown[cluster]==0.1.0"]}
    command = parsed(shlex.join(words[words.index("--") + 1 :]))
    assert command["config"] == Path("my.yaml")
    assert (command["run"], command["address"]) == ("s3://b/run", "auto")
    assert command["overrides"] == ["search.trials=9"]


def test_slurm_starts_ray_on_every_node_and_the_search_beside_its_head(
    programs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = {"JOB_NODELIST": "node-[a-b]", "JOB_ID": "41", "NNODES": "2", "CPUS_PER_TASK": "8", "GPUS_ON_NODE": "1"}
    for name, value in facts.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    subprocess.run([FOLDER / "slurm", "my.yaml", "/shared/run", "search.trials=9"], check=True)
    until = time.monotonic() + 60
    while len(found := calls(programs)) < 3 and time.monotonic() < until:
        time.sleep(0.1)  # what the script started beside the search may be slower
    starts = [words[words.index("ray") :] for words in found if words[0] == "srun"]
    assert sorted(words[2] for words in starts) == ["--address=node-a:20041", "--head"]
    assert all({"--num-cpus=8", "--num-gpus=1", "--block"} <= set(words) for words in starts)
    (search,) = [words for words in found if words[0] == "paredown"]
    assert parsed(shlex.join(search))["address"] == "node-a:20041"
    header = [line.split()[1] for line in (FOLDER / "slurm").read_text().splitlines() if line.startswith("#SBATCH")]
    assert {"--requeue", "--signal=B:TERM@120"} <= set(header)


@pytest.mark.parametrize("name", ["submit", "slurm"])
def test_scripts_are_bash(name: str) -> None:
    subprocess.run(["bash", "-n", FOLDER / name], check=True)
    assert os.access(FOLDER / name, os.X_OK)


def test_the_rayjob_has_what_kuberay_asks_for_and_a_command_of_ours() -> None:
    job = yaml.safe_load((FOLDER / "rayjob.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    known = {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished", "rayClusterSpec"}
    assert set(spec) == known
    assert parsed(spec["entrypoint"])["address"] == "auto"
    cluster = spec["rayClusterSpec"]
    assert set(cluster) == {"enableInTreeAutoscaling", "headGroupSpec", "workerGroupSpecs"}
    (workers,) = cluster["workerGroupSpecs"]
    assert {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"} == set(workers)
    assert workers["minReplicas"] <= workers["replicas"] <= workers["maxReplicas"]
    for group in (cluster["headGroupSpec"], workers):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = group["template"]["spec"]
        mounted = {m["name"] for container in pod["containers"] for m in container.get("volumeMounts", ())}
        assert mounted == {volume["name"] for volume in pod.get("volumes", ())}
        for container in pod["containers"]:
            assert container["image"]
            assert container["resources"]["requests"] == container["resources"]["limits"]


def test_ray_up_takes_its_file() -> None:
    import jsonschema
    import ray.autoscaler

    config = yaml.safe_load((FOLDER / "ray-up.yaml").read_text())
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    jsonschema.validate(config, schema)
    assert config["head_node_type"] in config["available_node_types"]
    commands = [line for line in (FOLDER / "ray-up.yaml").read_text().splitlines() if "'paredown search" in line]
    assert parsed(commands[0].split("'")[1])["run"] == "s3://bucket/runs/my-run"
