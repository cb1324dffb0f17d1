"""Nothing foreign is executed: what the sources of the packages must not hold, and what a report must escape."""

from __future__ import annotations

import ast
import json
import re
import shutil
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    file for room in ("spaces", "compressors", "search", "analysis") for file in sorted((ROOT / room).rglob("*.py"))
]
SOURCES.append(ROOT / "paredown.py")

CALLS = {
    "eval": "runs what it is given",
    "exec": "runs what it is given",
    "compile": "makes code of text",
    "__import__": "imports what it is given",
    "os.system": "is a shell",
    "os.popen": "is a shell",
    "pickle.load": "unpickles",
    "pickle.loads": "unpickles",
    "marshal.loads": "unpickles",
    "pd.read_pickle": "unpickles",
    "torch.load": "unpickles",
    "joblib.load": "unpickles",
    "tempfile.mktemp": "names a file that another may make first",
    "zipfile.ZipFile": "opens an archive, whose members must be checked",
    "tarfile.open": "opens an archive, whose members must be checked",
    "shutil.unpack_archive": "opens an archive",
}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "telnetlib", "requests", "urllib"}
YAML = {"yaml.load", "yaml.load_all", "yaml.unsafe_load", "yaml.full_load", "yaml.safe_load"}
"""Reading YAML is left to ``spaces.plain_yaml``, which bounds it; the worker reads what the driver wrote."""
OWN_YAML = {"search/workers/worker.py", "search/workers/prepare.py"}
ALLOWED = {"search/demo.py": "tarfile.open"}
"""The demo's archive has a known sha256, and nothing of it is written to disk."""


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_name(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else ""


def _findings(file: Path) -> Iterator[str]:
    at = file.relative_to(ROOT).as_posix()
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from (f"{at}:{node.lineno} imports {n}" for n in names if n.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        if name in CALLS and ALLOWED.get(at) != name:
            yield f"{at}:{node.lineno} {name} {CALLS[name]}"
        if name in YAML and not (name == "yaml.safe_load" and at in OWN_YAML):
            yield f"{at}:{node.lineno} {name}: spaces.plain_yaml reads YAML"
        said = {word.arg: word.value for word in node.keywords}
        if name.endswith((".load", ".memmap")) and name.startswith("np.") and not _is(said.get("allow_pickle"), False):
            yield f"{at}:{node.lineno} {name} without allow_pickle=False"
        if "shell" in said and not _is(said["shell"], False):
            yield f"{at}:{node.lineno} {name} with a shell"
        if _is(said.get("trust_remote_code"), True):
            yield f"{at}:{node.lineno} {name} trusts remote code whatever the user says"
        if name.startswith("subprocess.") and node.args and not isinstance(node.args[0], ast.List | ast.Name):
            yield f"{at}:{node.lineno} {name} with a text in place of a list of arguments"
        if name.endswith("Environment") and "jinja" in ast.dump(node).lower() and not _is(said.get("autoescape"), True):
            yield f"{at}:{node.lineno} {name} without autoescape"


def _is(node: ast.expr | None, value: bool) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_no_source_unpickles_evaluates_or_starts_a_shell() -> None:
    assert [finding for file in SOURCES for finding in _findings(file)] == []


@pytest.mark.parametrize(
    "text",
    [
        "import pickle",
        "from urllib.request import urlopen",
        "eval(text)",
        "torch.load(file)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=yaml.SafeLoader)",
        "np.load(file)",
        "np.load(file, allow_pickle=True)",
        "subprocess.run('ls', check=True)",
        "subprocess.run(words, shell=True)",
        "auto.from_pretrained(name, trust_remote_code=True)",
    ],
)
def test_the_scan_finds_what_it_looks_for(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "x.py").write_text(text)
    assert len(list(_findings(tmp_path / "x.py"))) == 1


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    from compressors.saving import load
    from search.students.model_folder import tokenizer_of

    folder = Path(shutil.copytree(ROOT / "tests" / "golden" / "model", tmp_path / "model"))
    (folder / "modeling_paredown.py").write_text("raise SystemExit('code of the folder was run')")
    (folder / "tokenizer.py").write_text("raise SystemExit('code of the folder was run')")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings["auto_map"] = {"AutoTokenizer": ["tokenizer.Mine", None]}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    model = load(folder)
    assert len(tokenizer_of(folder, model)) == 45


def test_templates_escape_everything_but_our_own_style_script_and_figures() -> None:
    templates = sorted((ROOT / "analysis").rglob("*.j2"))
    assert templates
    assert [file.name for file in templates if "safe" in file.read_text().replace("'unsafe-", "")] == []
    code = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "analysis").rglob("*.py"))
    assert "autoescape=True" in code
    assert re.findall(r"\bMarkup\((\w+)", code) == ["text"]
    assert set(re.findall(r"=_unescaped\(([^(]+)\(", code)) == {
        "parts.joinpath",
        '"\\n".join',
        "_packed_plotly",
        "script_json",
    }


def test_every_package_that_make_install_asks_for_has_one_exact_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    installed = ["dev", *re.split(r"[\[\],]", extras["dev"][0])[1:-1]]  # with the trackers nothing is tested
    asked = [*project["dependencies"], *(line for extra in installed for line in extras[extra])]
    names = {re.split(r"[\[<>=; ]", line)[0].lower() for line in asked} - {project["name"]}
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and not line.startswith("#")]
    assert [line for line in pins if not re.fullmatch(r"[\w.-]+==[\w.+!-]+", line)] == []
    pinned = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in pins]
    assert len(set(pinned)) == len(pinned)
    assert {re.sub(r"[-_.]+", "-", name) for name in names} - set(pinned) == set()
