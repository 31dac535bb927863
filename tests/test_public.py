"""The public names of the package."""

from __future__ import annotations

import subprocess
import sys

import pytest

import inferometer


def test_every_public_name_is_there() -> None:
    """Each name of `__all__` resolves, and the names that DESIGN 4.3 promises are among them."""
    for name in inferometer.__all__:
        assert getattr(inferometer, name) is not None
    assert {"fluidity_index", "score", "read_run", "read_trace"} <= set(inferometer.__all__)


def test_other_names_are_attribute_errors() -> None:
    """A typing mistake fails as in any module."""
    with pytest.raises(AttributeError, match="no attribute 'scores'"):
        inferometer.scores  # noqa: B018


def test_the_package_is_cheap_to_import() -> None:
    """Nothing heavy is imported before it is used."""
    code = "import inferometer, sys; print('numpy' in sys.modules or 'pyarrow' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "False"


def test_a_star_import_brings_the_public_names() -> None:
    """`from inferometer import *` works on lazy names."""
    space: dict[str, object] = {}
    exec("from inferometer import *", space)
    assert callable(space["score"])
