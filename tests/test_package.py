"""What `import gpueinsum` offers."""

import gpueinsum as ge


def test_only_public_names_are_listed():
    listed = [name for name in dir(ge) if not name.startswith("__")]
    assert listed == sorted(ge.__all__)
    assert all(hasattr(ge, name) for name in dir(ge))
