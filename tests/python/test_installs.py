"""The packages of the tests come from the registries, with pinned versions, and run no code when
they are installed.

In: the files that name the packages, and the scripts that install them. A package with an address
of its own would be fetched from that address. A package that runs code when it is installed could
fetch anything.
"""

import json
import re
import xml.etree.ElementTree
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent


def lines(path):
    """Returns the lines of a file without comments."""
    text = (TESTS / path).read_text()
    return [line for line in text.splitlines() if line and not line.startswith(("#", "//"))]


@pytest.mark.parametrize("folder", ["aws", "python", "sdks/python"])
def test_each_package_for_python_has_a_version_and_no_address(folder):
    for line in lines(f"{folder}/requirements.txt"):
        assert re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9a-z.]+", line), line


@pytest.mark.parametrize("folder", ["node", "sdks/node"])
def test_each_package_for_node_has_a_checksum_and_no_address(folder):
    """The setting in `.npmrc` keeps the addresses of the registry out of the file."""
    packages = json.loads((TESTS / folder / "package-lock.json").read_text())["packages"]
    del packages[""]
    assert packages
    for name, package in packages.items():
        assert package["integrity"].startswith("sha512-"), name
        assert "resolved" not in package and "link" not in package, name


def test_the_packages_for_java_come_from_no_other_repository():
    root = xml.etree.ElementTree.parse(TESTS / "sdks/java/pom.xml").getroot()
    names = {element.tag.split("}")[1] for element in root.iter()}
    assert names.isdisjoint({"repositories", "pluginRepositories", "parent", "systemPath"}), names
    sums = dict(line.split()[::-1] for line in lines("sdks/java/jars.sha256"))
    for dependency in root.iter("{*}dependency"):
        artifact, version = dependency.findtext("{*}artifactId"), dependency.findtext("{*}version")
        assert re.fullmatch("[0-9a-f]{64}", sums[f"{artifact}-{version}.jar"])


def test_the_modules_for_go_are_not_replaced_and_have_checksums():
    assert not any(line.startswith("replace") for line in lines("sdks/go/go.mod"))
    modules = [line.split()[:2] for line in lines("sdks/go/go.mod") if line.startswith("\t")]
    sums = lines("sdks/go/go.sum")
    assert modules
    for module, version in modules:
        assert any(line.startswith(f"{module} {version} h1:") for line in sums), module


def test_the_scripts_run_no_code_of_the_packages_that_they_install():
    for path in ("aws/install", "python/install", "node/install", "sdks/install"):
        commands = "\n".join(lines(path)).replace("\\\n", " ").splitlines()
        installs = [line for line in commands if re.search(r"pip install|npm ci|npm install", line)]
        assert installs, path
        for line in installs:
            assert "--only-binary :all:" in line or "npm ci --ignore-scripts" in line, line
