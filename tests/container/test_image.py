"""Checks the content of the images."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tree(podman, image):
    """A folder in which the files of the image are mounted."""
    folder = Path(podman("image", "mount", image))
    yield folder
    podman("image", "unmount", image)


def test_the_image_has_these_files_and_no_other(tree):
    files = {str(path.relative_to(tree)) for path in tree.rglob("*") if not path.is_dir()}
    assert files == {
        "etc/amazon/xray/cfg.yaml",
        "etc/group",
        "etc/nsswitch.conf",
        "etc/passwd",
        "etc/ssl/certs/ca-certificates.crt",
        "usr/bin/xray",
        "xray",
    }
    cfg = (ROOT / "deploy/cfg.yaml").read_text()
    assert (tree / "etc/amazon/xray/cfg.yaml").read_text() == cfg
    assert (tree / "etc/ssl/certs/ca-certificates.crt").read_text().count("BEGIN CERT") > 100


def test_both_paths_of_the_binary_are_one_static_file(tree):
    assert (tree / "xray").samefile(tree / "usr/bin/xray")
    headers = subprocess.run(["readelf", "-lW", tree / "xray"], capture_output=True, text=True)
    assert "LOAD" in headers.stdout and "INTERP" not in headers.stdout


def test_the_relocations_of_the_binary_are_packed(tree):
    headers = subprocess.run(["readelf", "-SW", tree / "xray"], capture_output=True, text=True)
    [size] = re.findall(r" \.rela\.dyn +\S+ +\S+ +\S+ +([0-9a-f]+)", headers.stdout) or ["0"]
    assert ".relr.dyn" in headers.stdout and int(size, 16) < 10_000


def test_the_image_is_smaller_than_17_megabytes(podman, image):
    assert podman.inspect("image", image)["Size"] < 17_000_000


def test_the_image_starts_as_the_originals_does(podman, image):
    config = podman.inspect("image", image)["Config"]
    assert config["Entrypoint"] == ["/xray", "-t", "0.0.0.0:2000", "-b", "0.0.0.0:2000"]
    assert set(config["ExposedPorts"]) == {"2000/tcp", "2000/udp"}
    assert config["User"] == "10001" and not config.get("Cmd")
    health = podman.inspect("image", image)["Healthcheck"]
    assert health["Test"] == ["CMD", "/xray", "healthcheck"]


def test_the_amazon_linux_image_has_a_shell_and_both_paths(podman, image):
    podman.build("with-a-shell", "--target", "amazonlinux")
    flags = ["run", "--rm", "--network=none", "--volume=/usr:/usr:ro", "--entrypoint=/bin/sh"]
    script = "id -un; cat /etc/passwd; ls -l /xray"
    lines = podman(*flags, "with-a-shell", "-c", script).splitlines()
    assert lines[0] == "xray" and lines[1].startswith("root:"), lines
    first = podman.inspect("image", "with-a-shell")
    second = podman.inspect("image", image)
    for key in ("Entrypoint", "ExposedPorts", "User"):
        assert first["Config"][key] == second["Config"][key]
    assert first["Healthcheck"] == second["Healthcheck"]
