"""What inferd needs at run time, out of .venv: no tools of developers, no headers, nothing twice."""

from __future__ import annotations

import filecmp
import shutil
import subprocess
import sys
import tempfile
import tomllib
from importlib import metadata
from pathlib import Path, PurePosixPath

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
# Folders that wheels put beside the packages: a second copy of llama.cpp's library, headers, scripts.
STRAY = {"lib", "include", "bin", "share", "example.py"}
UNUSED_SUFFIXES = {".pyi", ".pxd", ".pyx", ".h", ".hpp", ".c", ".a", ".lib", ".pyc", ".cmake", ".pc", ".sh"}
UNUSED_FOLDERS = {"tests", "__pycache__"}
UNUSED_METADATA = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
CUDA_ENGINE = "llama_cpp/lib/libggml-cuda.so"
# 280 MB that load only beside NVIDIA's libraries: they go with an engine that was built for CUDA.
CUDA_PROVIDERS = ("libonnxruntime_providers_cuda.so", "libonnxruntime_providers_tensorrt.so")


def needed() -> dict[str, metadata.Distribution]:
    """The distributions that inferd imports, and those that they need here, by name."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    found: dict[str, metadata.Distribution] = {}
    open_ends = [(Requirement(text), "") for text in project["dependencies"]]
    seen = set()
    while open_ends:
        requirement, extra = open_ends.pop()
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        found[name] = metadata.distribution(name)
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                open_ends += [(Requirement(text), wanted) for text in found[name].requires or ()]
    return dict(sorted(found.items()))


def install(site: Path, root: Path) -> None:
    """inferd and everything it needs, below `site`."""
    site.mkdir(parents=True)
    for distribution in needed().values():
        copy(distribution, site)
    with_links(site / "llama_cpp" / "lib")
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        ignored = shutil.ignore_patterns(".*", "tests", "build", "dist", "*.egg-info", "__pycache__")
        shutil.copytree(root, tree, ignore=ignored)
        flags = ("--no-deps", "--no-build-isolation", "--no-compile", "--no-index", "--target")
        subprocess.run([sys.executable, "-m", "pip", "install", "-q", *flags, site, tree], check=True)
    shutil.rmtree(site / "bin", ignore_errors=True)
    for name in UNUSED_METADATA:
        for path in site.glob(f"*.dist-info/{name}"):
            path.unlink()


def copy(distribution: metadata.Distribution, site: Path) -> None:
    """The files of one distribution that are read at run time."""
    with_cuda = Path(str(distribution.locate_file(CUDA_ENGINE))).exists()
    for file in distribution.files or ():
        if is_used(PurePosixPath(file), with_cuda=with_cuda):
            source, target = Path(str(file.locate())), site / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)


def is_used(file: PurePosixPath, *, with_cuda: bool) -> bool:
    """Whether a file of a wheel matters to who only runs it."""
    if file.parts[0] in (*STRAY, "..") or file.suffix in UNUSED_SUFFIXES or UNUSED_FOLDERS & set(file.parts[:-1]):
        return False
    return with_cuda or file.name not in CUDA_PROVIDERS


def with_links(folder: Path) -> None:
    """Names of the same library become links to the longest: wheels cannot hold links, and repeat the file."""
    libraries = sorted(folder.glob("*.so*"), key=lambda path: -len(path.name))
    for i, path in enumerate(libraries):
        for longer in libraries[:i]:
            if not longer.is_symlink() and longer.name.startswith(path.name) and filecmp.cmp(longer, path, False):
                path.unlink()
                path.symlink_to(longer.name)
                break


def licences() -> str:
    """One line for each library that the package brings."""
    lines = []
    for name, distribution in needed().items():
        said = distribution.metadata
        licence = said.get("License-Expression") or (said.get("License") or "").strip().partition("\n")[0]
        named = [word for word in said.get_all("Classifier") or () if word.startswith("License")]
        licence = licence or ", ".join(word.rpartition("::")[2].strip() for word in named)
        lines.append(f" {name} {distribution.version}: {licence or 'see its files'}")
    return "Comment: The libraries are\n" + "\n".join(lines) + "\n"
