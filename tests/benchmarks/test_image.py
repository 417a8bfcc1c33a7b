"""The Dockerfile and its pins fit the project."""

import re
import shlex
import subprocess
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from benchmarks.container import ROOT

DOCKERFILE = ROOT / "Dockerfile"
in_the_source = pytest.mark.skipif(not DOCKERFILE.exists(), reason="the image does not hold what it was made of")


def instructions(kind):
    """What follows that word in the Dockerfile, continued lines joined."""
    lines = "".join(line for line in DOCKERFILE.read_text().splitlines(keepends=True) if line[0] != "#")
    return [line.removeprefix(kind + " ") for line in lines.replace("\\\n", "").splitlines() if line.startswith(kind)]


def pins():
    """Versions by canonical name."""
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def extras():
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]


def installed_extras():
    """The extras that the Dockerfile's lines ask for."""
    [names] = [found for line in instructions("RUN") for found in re.findall(r"/tmp/source\[([\w,-]+)\]", line)]
    return names.split(",")


def requirements(extra):
    """All that an extra asks for, by way of other extras, too."""
    for text in extras()[extra]:
        requirement = Requirement(text)
        if requirement.name == "gpueinsum":
            for other in requirement.extras:
                yield from requirements(other)
        else:
            yield requirement


@in_the_source
def test_the_base_is_pinned_to_a_full_version():
    [base] = instructions("FROM")
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-[a-z]+", base)


@in_the_source
def test_everything_that_the_dockerfile_copies_is_there():
    sources = [source for line in instructions("COPY") for source in shlex.split(line)[:-1]]
    assert {"gpueinsum", "kernels", "tests", "benchmarks", "benchmarks/constraints.txt"} <= set(sources)
    assert [source for source in sources if not (ROOT / source).exists()] == []


@in_the_source
def test_every_shell_line_of_the_dockerfile_parses():
    for line in instructions("RUN"):
        subprocess.run(["sh", "-n", "-c", line], check=True)


@in_the_source
@pytest.mark.parametrize("extra", ["test", "peers-cuda13"])
def test_the_pins_satisfy_all_that_the_image_installs(extra):
    assert extra in installed_extras()
    found = pins()
    for requirement in requirements(extra):
        name = canonicalize_name(requirement.name)
        assert name in found, name
        assert requirement.specifier.contains(found[name]), requirement


def test_the_pins_are_exact_and_name_no_address():
    lines = (ROOT / "benchmarks" / "constraints.txt").read_text().splitlines()
    pinned = [line for line in lines if not line.startswith("#")]
    assert len(pinned) > 50
    assert [line for line in pinned if not re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][0-9A-Za-z.]*", line)] == []
    assert not any(word in line for line in lines for word in ("://", "@", "file:"))


@in_the_source
def test_the_versions_that_the_dockerfile_states_are_the_pinned_ones():
    head = " ".join(line.removeprefix("#") for line in DOCKERFILE.read_text().split("FROM")[0].splitlines())
    stated = re.findall(r"([\w-]+) (\d[\d.]*\d)[,;.]", head.partition("Pinned")[2].partition("Size")[0])
    assert len(stated) > 8
    found = pins()
    assert {name: Version(version) for name, version in stated} == {
        name: found[canonicalize_name(name)] for name, _ in stated
    }
