"""Profiles as values and as files: what the package has, what was measured here and kept, what is in broken files."""

import dataclasses
import json

import pytest

from gpueinsum.costs import machine as machines
from gpueinsum.costs.machine import Machine, cache_folder, keep, kept_profile, machine, profile_for, profile_path
from gpueinsum.costs.profile import Profile, device_profile, profile
from gpueinsum.errors import DeviceError, ProfileError


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder, and no profile read before."""
    monkeypatch.setenv("GPUEINSUM_CACHE", str(tmp_path / "cache"))
    profile_for.cache_clear()
    yield tmp_path / "cache"
    profile_for.cache_clear()


def measured(kind="cpu"):
    return dataclasses.replace(profile("cpu" if kind == "cpu" else "h200"), name="mine")


# ---------------------------------------------------------------- the package's


@pytest.mark.parametrize("name", ["a100", "cpu", "h200"])
def test_profiles_of_the_package_are_read_and_written_back(name):
    found = profile(name)
    assert found.name == name
    assert Profile.from_json(found.to_json()) == found
    assert all(rate.flops_per_second > 1e9 for _, rate in found.rates)


def test_a_profile_says_what_its_device_cannot_multiply():
    assert profile("cpu").rate("float32") is not None
    assert profile("cpu").rate("int64") is None


def test_a_name_that_is_none_is_told_those_there_are():
    with pytest.raises(
        ProfileError, match=r"no device profile 'h999': there are a100, cpu, h200, or a file NAME\.json"
    ):
        device_profile("h999")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"launch": -1.0}, "launch is -1.0, no number of at least 0"),
        ({"bytes_per_second": 0}, "bytes_per_second is 0, no number above 0"),
        ({"cached": float("inf")}, "cached is inf"),
        ({"permuted": True}, "permuted is True"),
        ({"kind": "tpu"}, "kind 'tpu' is neither"),
        ({"rates": {"float32": {"flops_per_second": 1e9}}}, "TypeError"),
        ({"rates": []}, "AttributeError"),
        ({"spam": 1}, "spam"),
    ],
)
def test_what_is_no_profile_is_refused(change, complaint):
    data = json.loads(profile("cpu").to_json()) | change
    with pytest.raises(ProfileError, match=complaint):
        Profile.from_json(json.dumps(data))


def test_a_profile_in_a_file_is_named_by_its_path(tmp_path):
    keep(measured(), tmp_path / "mine.json")
    assert device_profile(str(tmp_path / "mine.json")) == measured()


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000], ids=range(5))
def test_a_file_that_holds_no_profile_is_named(tmp_path, content):
    path = tmp_path / "broken.json"
    path.write_bytes(content)
    with pytest.raises(ProfileError, match=r"broken\.json: "):
        device_profile(str(path))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ProfileError, match=r"missing\.json: .*No such file"):
        device_profile(str(tmp_path / "missing.json"))


# ---------------------------------------------------------------- this machine's


def test_what_was_measured_here_is_used(cache):
    assert profile_for("cpu") == profile("cpu")
    profile_for.cache_clear()
    keep(measured(), profile_path(machine("cpu")))
    assert profile_for("cpu") == measured()
    assert [path.name for path in cache.iterdir()] == [profile_path(machine("cpu")).name]  # no unfinished one


def test_a_profile_is_read_once(cache):
    profile_for("cpu")
    keep(measured(), profile_path(machine("cpu")))
    assert profile_for("cpu") == profile("cpu")


@pytest.mark.parametrize("content", [b"half a prof", measured("cuda").to_json().encode()], ids=["broken", "a GPU's"])
def test_a_kept_file_that_is_broken_is_warned_of_and_not_used(cache, content):
    path = profile_path(machine("cpu"))
    cache.mkdir()
    path.write_bytes(content)
    with pytest.warns(UserWarning, match="it is not used, gpueinsum calibrate writes it anew") as caught:
        assert profile_for("cpu") == profile("cpu")
    assert str(path) in str(caught[0].message)


def test_other_libraries_have_another_file(cache):
    here = machine("cpu")
    other = dataclasses.replace(here, versions=("numpy 9.9",))
    keep(measured(), profile_path(other))
    assert kept_profile(here) is None
    assert kept_profile(other) == measured()
    assert profile_path(Machine("cuda", "NVIDIA H200", ("cupy 14.2.0", "CUDA 13.0"))).name == (
        "cuda-nvidia-h200-cupy-14.2.0-cuda-13.0.json"
    )


def test_a_write_that_fails_leaves_what_was_there(cache, monkeypatch):
    path = profile_path(machine("cpu"))
    keep(measured(), path)
    monkeypatch.setattr(Profile, "to_json", lambda self: "\ud800")  # which UTF-8 has not
    with pytest.raises(UnicodeEncodeError):
        keep(profile("cpu"), path)
    assert list(cache.iterdir()) == [path]
    assert kept_profile(machine("cpu")) == measured()


def test_a_gpu_has_the_profile_of_its_name_or_else_an_h200s(cache, monkeypatch):
    for name, expected in (("NVIDIA A100-SXM4-80GB", "a100"), ("NVIDIA H200", "h200"), ("NVIDIA L4", "h200")):
        monkeypatch.setattr(machines, "machine", lambda kind, name=name: Machine(kind, name, ()))
        profile_for.cache_clear()
        assert profile_for("cuda") == profile(expected)


def test_without_a_gpu_cuda_is_an_h200(cache, monkeypatch):
    def none(kind):
        raise DeviceError("no device")

    monkeypatch.setattr(machines, "machine", none)
    assert profile_for("cuda") == profile("h200")


def test_the_cache_folder_is_the_users(monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.setenv("XDG_CACHE_HOME", "/caches")
    monkeypatch.setenv("GPUEINSUM_CACHE", "/own")
    assert str(cache_folder()) == "/own"
    monkeypatch.delenv("GPUEINSUM_CACHE")
    assert str(cache_folder()) == "/caches/gpueinsum"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert str(cache_folder()) == "/home/somebody/.cache/gpueinsum"


def test_products_in_a_precision_that_was_measured_have_its_rate():
    h200 = profile("h200")
    assert h200.rate("float32", "tf32") == h200.rate("complex64", "tf32") == dict(h200.rates)["tf32"]
    for dtype, precision in (("float64", "tf32"), ("float32", "bf16"), ("float32", "highest")):
        assert h200.rate(dtype, precision) == h200.rate(dtype)
