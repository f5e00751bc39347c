"""`make deb`: the Debian package, from the tree and from what .venv holds, llama.cpp's compiled library among it.

/usr/lib/inferd is a virtual environment at its final place, on the machine's Python of the same minor version as here.
The same tree, .venv and SOURCE_DATE_EPOCH give the same bytes. Nothing is fetched.
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import time
import tomllib
from email.utils import formatdate
from pathlib import Path

import closure
import manual

ROOT = Path(__file__).parents[1]
HERE = ROOT / "packaging"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
HOME = "usr/lib/inferd"
SITE = f"{HOME}/lib/{PYTHON}/site-packages"
UNITS = "lib/systemd/system"  # where lintian of Debian 12 wants them
MAINTAINER = "The inferd developers <inferd@packages.invalid>"
MODELS = "/var/lib/inferd/models"
ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}

CONTROL = """\
Package: inferd
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size_kib}
Depends: {depends}
Recommends: bash-completion
Section: science
Priority: optional
Description: local inference appliance for a shared workstation
 inferd turns one workstation into a shared inference appliance. One daemon
 detects the accelerators, loads quantized models through llama.cpp and ONNX
 Runtime, gives everybody's requests their turn by priority and memory
 headroom, and shows what it is doing in a terminal.
 .
 The llama.cpp inside was compiled where this package was built, by default
 for that very processor (GGML_NATIVE); "make deb NATIVE=0" from a clean tree
 makes one for every x86-64-v3 processor.
"""

TOKENS = """\
# Tokens that the daemon takes over when it starts, one a line: NAME ROLE TENANT SHA256-OF-THE-TOKEN
# Those of `inferd token create` are kept by the daemon, and need no line here.
"""

COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: inferd
Comment: inferd itself is in the files below inferd/; the libraries beside it
 keep their own licences, each with its text in NAME.dist-info.

Files: *
Copyright: {year} the inferd developers
License: Apache-2.0
 On Debian systems the text of this licence is in
 /usr/share/common-licenses/Apache-2.0.
"""

LAUNCHERS = {
    # -I: neither the folder where somebody stands nor their PYTHON* variables matter; -B: nothing is written here.
    "inferd": "from inferd.daemon.cli.app import main\n\nmain()\n",
    "inferd-top": "import sys\n\nfrom inferd.tui.main import main\n\nsys.exit(main())\n",
}


def main() -> None:
    """Build one package and print its path."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--revision", default="1", help="the part of the version behind the dash")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "deb", help="folder for the package")
    given = parser.parse_args()
    version = f"{PROJECT['version']}-{given.revision}"
    architecture = ARCHITECTURES.get(os.uname().machine, os.uname().machine)
    stage = given.out / "stage"
    shutil.rmtree(stage, ignore_errors=True)
    stage.mkdir(parents=True)
    epoch = epoch_s()
    fill(stage, version, epoch)
    write_control(stage, version, architecture)
    settle(stage, epoch)
    package = given.out / f"inferd_{version}_{architecture}.deb"
    # One thread: with several the bytes depend on how many there are.
    options = ("--root-owner-group", "-Zzstd", "--threads-max=1")
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch)}
    subprocess.run(["dpkg-deb", *options, "--build", stage, package], check=True, env=environment, stdout=sys.stderr)
    shutil.rmtree(stage)
    print(package)


def epoch_s() -> int:
    """The moment that all files of the package are from: given, else that of the last commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    done = subprocess.run(["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True)
    return int(done.stdout or 0) or int((ROOT / "CHANGELOG.md").stat().st_mtime)


def fill(stage: Path, version: str, epoch: int) -> None:
    """Every file of the package."""
    site = stage / SITE
    closure.install(site, ROOT)
    compile_all(site, stage)
    put(stage, f"{HOME}/pyvenv.cfg", f"home = /usr/bin\ninclude-system-site-packages = false\nversion = {python()}\n")
    link(stage, f"{HOME}/bin/python", f"../../../bin/{PYTHON}")
    for name, code in LAUNCHERS.items():
        about = "The command line of inferd." if name == "inferd" else "The monitor of inferd."
        text = f'#!/usr/lib/inferd/bin/python -IB\n"""{about}"""\n\n{code}'
        put(stage, f"{HOME}/bin/{name}", text, 0o755)
        link(stage, f"usr/bin/{name}", f"../lib/inferd/bin/{name}")
    systemd = HERE / "systemd"
    put(stage, f"{HOME}/libexec/prepare-devices", (systemd / "prepare-devices").read_text(), 0o755)
    put(stage, f"{UNITS}/inferd.service", (systemd / "inferd.service").read_text())
    put(stage, "usr/lib/sysusers.d/inferd.conf", (systemd / "sysusers.conf").read_text())
    put(stage, "usr/lib/tmpfiles.d/inferd.conf", (systemd / "tmpfiles.conf").read_text())
    for dropin in sorted((systemd / "dropins").glob("*.conf")):
        put(stage, f"usr/share/inferd/systemd/{dropin.name}", dropin.read_text())
    put(stage, "etc/inferd/inferd.toml", packaged_config((HERE / "inferd.toml").read_text()))
    put(stage, "etc/inferd/tokens", TOKENS, 0o600)  # the unit's LoadCredential wants it there
    document(stage, version, epoch)


def document(stage: Path, version: str, epoch: int) -> None:
    """Manual pages, completions, and what is below /usr/share/doc."""
    config = (HERE / "inferd.toml").read_text()
    pages = {
        "man1/inferd.1": manual.inferd_1(PROJECT["version"]),
        "man1/inferd-top.1": manual.inferd_top_1(PROJECT["version"]),
        "man5/inferd.toml.5": manual.inferd_toml_5(PROJECT["version"], config),
        "man8/inferd.8": manual.inferd_8(PROJECT["version"]),
    }
    for name, page in pages.items():
        put_gzip(stage, f"usr/share/man/{name}.gz", page)
    scripts = manual.completions()
    put(stage, "usr/share/bash-completion/completions/inferd", scripts["bash"])
    put(stage, "usr/share/zsh/vendor-completions/_inferd", scripts["zsh"])
    put(stage, "usr/share/fish/vendor_completions.d/inferd.fish", scripts["fish"])
    doc = "usr/share/doc/inferd"
    put(stage, f"{doc}/README.md", (ROOT / "README.md").read_text())
    put(stage, f"{doc}/copyright", COPYRIGHT.format(year=time.gmtime(epoch).tm_year) + closure.licences())
    put_gzip(stage, f"{doc}/changelog.gz", (ROOT / "CHANGELOG.md").read_text())
    said = "  * Made from the tree; changelog.gz says what changed."
    entry = f"inferd ({version}) unstable; urgency=medium\n\n{said}\n\n -- {MAINTAINER}  {formatdate(epoch)}\n"
    put_gzip(stage, f"{doc}/changelog.Debian.gz", entry)
    put(stage, "usr/share/lintian/overrides/inferd", (HERE / "debian" / "lintian-overrides").read_text())


def packaged_config(text: str) -> str:
    """The commented default config, with the folder that the package makes for models."""
    lines = text.splitlines(keepends=True)
    (place,) = [i for i, line in enumerate(lines) if line.startswith("# folders = []")]
    lines[place] = lines[place].replace("# folders = []", f'folders = ["{MODELS}"]', 1)
    return "".join(lines)


def write_control(stage: Path, version: str, architecture: str) -> None:
    """DEBIAN/: what dpkg itself reads."""
    files = [path for path in sorted(stage.rglob("*")) if path.is_file() and not path.is_symlink()]
    size_kib = sum(-(-path.stat().st_size // 1024) for path in files)
    sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(stage)}\n" for path in files)
    said = {"version": version, "architecture": architecture, "maintainer": MAINTAINER}
    put(stage, "DEBIAN/control", CONTROL.format(**said, size_kib=size_kib, depends=", ".join(depends())))
    put(stage, "DEBIAN/md5sums", sums)
    put(stage, "DEBIAN/conffiles", "/etc/inferd/inferd.toml\n/etc/inferd/tokens\n")
    for name in ("postinst", "prerm", "postrm"):
        put(stage, f"DEBIAN/{name}", (HERE / "debian" / name).read_text(), 0o755)


def depends() -> list[str]:
    """The Python that the files are for, and the libraries that llama.cpp was linked with here."""
    minor = sys.version_info.minor
    glibc = os.confstr("CS_GNU_LIBC_VERSION").split()[-1]
    pythons = [f"python3 (>= 3.{minor})", f"python3 (<< 3.{minor + 1})", PYTHON]
    return [*pythons, f"libc6 (>= {glibc})", f"libstdc++6 (>= {compiler()})", "libgcc-s1", "libgomp1", "systemd"]


def compiler() -> str:
    """The version of the C++ library that is installed where this is built."""
    done = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "libstdc++6"], capture_output=True, text=True)
    return done.stdout.partition("-")[0] or "12"


def compile_all(site: Path, stage: Path) -> None:
    """Bytecode beside every module: a start takes a third as long. It is not compared with the source ever again."""
    command = ["-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash", "-s", stage, "-p", "/", site]
    # The order of a set's constants is that of their hashes.
    subprocess.run([sys.executable, *command], check=True, env={**os.environ, "PYTHONHASHSEED": "0"})


def python() -> str:
    return ".".join(map(str, sys.version_info[:3]))


def put(stage: Path, name: str, text: str, mode: int = 0o644) -> None:
    path = stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def put_gzip(stage: Path, name: str, text: str) -> None:
    put(stage, name, "")
    (stage / name).write_bytes(gzip.compress(text.encode(), compresslevel=9, mtime=0))


def link(stage: Path, name: str, target: str) -> None:
    path = stage / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.symlink_to(target)


def settle(stage: Path, epoch: int) -> None:
    """Modes and times that do not come from this machine; what is secret stays its owner's."""
    for path in (stage, *stage.rglob("*")):
        if not path.is_symlink():
            secret = path.is_relative_to(stage / "etc") and not path.stat().st_mode & 0o077 and path.is_file()
            runs = path.is_dir() or path.stat().st_mode & 0o100
            path.chmod(0o600 if secret else 0o755 if runs else 0o644)
        os.utime(path, (epoch, epoch), follow_symlinks=False)


if __name__ == "__main__":
    main()
