"""Checks the files of a release (deploy/release) without building the daemon.

In: a small program of this machine in place of the daemon, the crates that cargo has fetched, and
XRAY_BINARY, in whose debug information the crates are named. Out: the same files each time, an SBOM
that is valid and complete, packages in which lintian and rpmlint find no error, documents whose
links lead somewhere, and an image with the settings of the Dockerfile.

tests/release builds the daemon twice and compares: `tests/run --full release`.
"""

import gzip
import hashlib
import io
import json
import os
import platform
import re
import shutil
import subprocess
import tarfile
import tomllib
from pathlib import Path

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from podman import ROOT

MACHINE = platform.machine()
VERSION = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["version"]
PROGRAM = "/usr/bin/env"


def output(*command, **more):
    """Runs a command and returns its output."""
    done = subprocess.run(command, capture_output=True, text=True, **more)
    assert done.returncode == 0, f"{command}:\n{done.stdout}{done.stderr}"
    return done.stdout


def release(folder, **variables):
    """Makes the files of a release in a folder, with the program in place of the daemon."""
    binaries = folder.with_name(folder.name + "-binaries")
    for kind in ("static", "dynamic"):
        place = binaries / MACHINE / kind
        place.mkdir(parents=True)
        shutil.copy(PROGRAM, place / "xray")
    environment = os.environ | {"BINARIES": str(binaries)} | variables
    output(
        ROOT / "deploy/release", folder, env=environment, umask=int(variables.get("MASK", "22"), 8)
    )
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files of a release."""
    return release(tmp_path_factory.mktemp("release") / "first")


@pytest.fixture(scope="module")
def lintian(files):
    """lintian with the package for Debian. It runs beside the other tests."""
    [path] = files.glob("*.deb")
    command = ["lintian", "--no-cfg", "--allow-root", "--fail-on=error", path]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.fixture(scope="module")
def unpacked(files, tmp_path_factory):
    """The files of the package for Debian."""
    tree = tmp_path_factory.mktemp("unpacked")
    [path] = files.glob("*.deb")
    output("dpkg-deb", "--extract", path, tree)
    return tree


@pytest.fixture(scope="module")
def bill(files):
    """The SBOM."""
    return json.loads((files / f"xrayd-{VERSION}.cdx.json").read_text())


def named(bill):
    """Returns name and version of each crate of the SBOM."""
    return {(one["name"], one["version"]) for one in bill["components"]}


def test_a_release_has_each_kind_of_file_and_their_sums(files):
    kinds = [r"\.cdx\.json", r"-notices\.txt", r"\.oci\.tar", r"-1\.\w+\.rpm", r"_\w+\.deb"]
    kinds += [rf"-linux-{MACHINE}\.tar\.gz"]
    lines = (files / "SHA256SUMS").read_text().splitlines()
    sums = {line.split()[1]: line.split()[0] for line in lines}
    assert {path.name for path in files.iterdir()} == {*sums, "SHA256SUMS"}
    for kind in kinds:
        assert any(re.fullmatch(rf"xrayd[-_]{VERSION}.*{kind}", name) for name in sums), kind
    for name, digest in sums.items():
        assert hashlib.sha256((files / name).read_bytes()).hexdigest() == digest
    assert len(sums) == len(kinds)


def test_the_same_source_gives_the_same_bytes(files, lintian, tmp_path):
    again = release(
        tmp_path / "again", MASK="77", TZ="Asia/Tokyo", LANG="de_DE.UTF-8", USER="other"
    )
    assert (again / "SHA256SUMS").read_text() == (files / "SHA256SUMS").read_text()


def test_a_folder_with_files_is_not_touched(files):
    before = {path: path.stat().st_mtime_ns for path in files.iterdir()}
    done = subprocess.run([ROOT / "deploy/release", files], capture_output=True, text=True)
    assert done.returncode == 1 and "is not empty" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in files.iterdir()} == before


def test_the_sbom_is_valid_and_its_references_lead_to_its_crates(bill):
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(json.dumps(bill))
    assert error is None, error
    main = bill["metadata"]["component"]["bom-ref"]
    references = {one["bom-ref"] for one in bill["components"]} | {main}
    assert len(references) == len(bill["components"]) + 1
    assert {one["ref"] for one in bill["dependencies"]} == references
    after = {one["ref"]: one["dependsOn"] for one in bill["dependencies"]}
    reached, left = set(), [main]
    while left:
        found = left.pop()
        if found not in reached:
            reached.add(found)
            left += after[found]
    assert reached == references


def test_the_sbom_has_the_dependencies_of_cargo_lock_with_their_checksums(bill):
    lock = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    locked = {(one["name"], one["version"]): one for one in lock}
    for one in bill["components"]:
        checksum = locked[one["name"], one["version"]].get("checksum")
        assert one.get("hashes") == (checksum and [{"alg": "SHA-256", "content": checksum}])
        assert one["licenses"][0]["expression"]
    names = {name for name, _ in named(bill)}
    for folder in (".", "otlp", "sandbox"):
        manifest = tomllib.loads((ROOT / folder / "Cargo.toml").read_text())
        assert set(manifest["dependencies"]) <= names
    # These are for tests only.
    assert names.isdisjoint({"criterion", "loom", "proptest", "rcgen", "tempfile", "xrayd-perf"})


def test_the_sbom_has_each_crate_that_the_binary_names(bill):
    # Debug information has the path of each source file: .../registry/src/INDEX/NAME-VERSION/...
    binary = Path(os.environ["XRAY_BINARY"]).read_bytes()
    pattern = rb"registry/src/[^/\0]+/([A-Za-z0-9_-]+?)-(\d+\.\d+\.\d+[^/\0]*)/"
    built = {(name.decode(), version.decode()) for name, version in re.findall(pattern, binary)}
    assert len(built) > 50
    required = {
        (one["name"], one["version"]) for one in bill["components"] if one["scope"] == "required"
    }
    missing = built - required
    # A release is built without what the crates of the tests ask for, and the code that macros make
    # has the paths of their crates.
    assert {name for name, _ in missing} <= {"log", "regex-automata"}, missing


def test_the_notices_have_the_licence_of_each_crate_in_the_binary(files, bill):
    text = (files / f"xrayd-{VERSION}-notices.txt").read_text()
    for one in bill["components"]:
        if one["scope"] == "required" and "hashes" in one:
            assert f"\n{one['name']} {one['version']} (" in text, one["name"]
    assert "Permission is hereby granted" in text
    assert "standard library of Rust" in text and "GNU C Library" in text


def test_lintian_finds_no_error(lintian):
    said, _ = lintian.communicate()
    assert lintian.returncode == 0 and not re.search("^E:", said, re.MULTILINE), said


def test_rpmlint_finds_no_error(files):
    [path] = files.glob("*.rpm")
    configuration = ROOT / "deploy/packages/rpm/rpmlint.toml"
    said = output("rpmlint", "--config", configuration, path)
    assert " 0 errors" in said and ": E: " not in said, said


def test_the_documents_of_the_package_lead_to_files_of_the_package(unpacked):
    documents = unpacked / "usr/share/doc/xrayd"
    pages = sorted(documents.rglob("*.md"))
    assert len(pages) > 10
    led = 0
    for page in pages:
        for target in re.findall(r"\]\(([^)#\s]+)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} names {target}"
                led += 1
    assert led > 50
    unit = (unpacked / "lib/systemd/system/xray.service").read_text()
    [words] = re.findall("^Documentation=(.*)$", unit, re.MULTILINE)
    for word in words.split():
        if word.startswith("file://"):
            assert (unpacked / word.removeprefix("file:///")).exists(), word
        else:
            name, section = re.fullmatch(r"man:(.*)\((\d)\)", word).groups()
            assert (unpacked / f"usr/share/man/man{section}/{name}.{section}.gz").exists(), word
    # No path of the repository is named where the package has none.
    for line in (unpacked / "etc/amazon/xray/cfg.yaml").read_text().splitlines():
        assert "docs/" not in line


def test_both_packages_have_the_same_files_and_the_licences_of_the_crates(files, unpacked):
    [path] = files.glob("*.rpm")
    listed = set(output("rpm", "--query", "--list", "--package", path).split())
    found = {f"/{one.relative_to(unpacked)}" for one in unpacked.rglob("*") if one.is_file()}
    own = {"/usr/share/doc/xrayd/copyright", "/usr/share/doc/xrayd/changelog.Debian.gz"}
    own.add("/lib/systemd/system/xray.service")
    assert found - listed == own
    notices = (unpacked / "usr/share/doc/xrayd/notices.gz").read_bytes()
    assert gzip.decompress(notices) == (files / f"xrayd-{VERSION}-notices.txt").read_bytes()


def blobs(path):
    """Returns the index of an OCI archive, and its blobs by digest, which it checks."""
    with tarfile.open(path) as archive:
        contents = {one.name: archive.extractfile(one).read() for one in archive if one.isfile()}
    found = {}
    for name, content in contents.items():
        if name.startswith("blobs/sha256/"):
            digest = hashlib.sha256(content).hexdigest()
            assert name == f"blobs/sha256/{digest}"
            found[f"sha256:{digest}"] = content
    return json.loads(contents["index.json"]), found


def test_the_image_has_the_files_and_the_settings_of_the_dockerfile(files):
    index, found = blobs(files / f"xrayd-{VERSION}.oci.tar")
    [described] = index["manifests"]
    manifest = json.loads(found[described["digest"]])
    config = json.loads(found[manifest["config"]["digest"]])
    stage = (ROOT / "Dockerfile").read_text().rsplit("\nFROM ", 1)[1]
    line = lambda word: re.search(rf"^{word} (.*)$", stage, re.MULTILINE).group(1)
    assert config["config"]["Entrypoint"] == json.loads(line("ENTRYPOINT"))
    assert config["config"]["User"] == line("USER")
    assert set(config["config"]["ExposedPorts"]) == set(line("EXPOSE").split())
    health = config["config"]["Healthcheck"]
    assert health["Test"] == ["CMD", "/xray", "healthcheck"] and health["Retries"] == 3
    [packed] = manifest["layers"]
    tar = gzip.decompress(found[packed["digest"]])
    assert config["rootfs"]["diff_ids"] == [f"sha256:{hashlib.sha256(tar).hexdigest()}"]
    with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
        entries = archive.getmembers()
        assert {(one.uid, one.gid) for one in entries} == {(0, 0)}
        contents = {one.name: archive.extractfile(one).read() for one in entries if not one.isdir()}
    # The Dockerfile writes these files below /image.
    build = (ROOT / "Dockerfile").read_text()
    for text, name in re.findall(r'echo "(.*)" > /image/(etc/[a-z.]+)', build):
        assert contents[name].decode() == text + "\n"
    assert contents["etc/amazon/xray/cfg.yaml"] == (ROOT / "deploy/cfg.yaml").read_bytes()
    assert contents["xray"] == contents["usr/bin/xray"]
    assert b"BEGIN CERTIFICATE" in contents["etc/ssl/certs/ca-certificates.crt"]
    assert len(contents) == 7
    [archive] = files.glob("*.tar.gz")
    with tarfile.open(archive) as packed:
        name = f"xrayd-{VERSION}-linux-{MACHINE}"
        assert packed.extractfile(f"{name}/xray").read() == contents["xray"]
        assert {one.uname for one in packed.getmembers()} == {""}


def test_the_compiler_of_the_image_is_that_of_this_source():
    channel = tomllib.loads((ROOT / "rust-toolchain.toml").read_text())["toolchain"]["channel"]
    [base] = re.findall(r"docker\.io/library/rust:(\S+)", (ROOT / "Dockerfile").read_text())
    assert base == f"{channel}-bookworm"
