"""How what a person wrote becomes a spec, and how a mistake in it is told."""

import pytest

from inferometer.errors import UserError
from inferometer.spec import Spec, parse, parse_short, read_spec, seconds, short_form


class Gamma(Spec, frozen=True, tag="gamma", tag_field="kind"):
    rate: float
    cv: float = 1.0

    def __post_init__(self):
        if self.cv <= 0:
            raise ValueError("cv must be positive")


class Constant(Spec, frozen=True, tag="constant", tag_field="kind"):
    rate: float


class Load(Spec, frozen=True):
    arrivals: Gamma | Constant


def test_three_spellings_of_one_choice():
    """A mapping, a short form and a file give the same spec."""
    expected = Gamma(rate=4, cv=2)

    assert parse({"kind": "gamma", "rate": 4, "cv": 2}, Gamma | Constant) == expected
    assert parse_short("gamma:rate=4,cv=2", Gamma | Constant, where="--arrivals") == expected


@pytest.mark.parametrize(
    ("value", "complaint"),
    [
        ({"arrivals": {"kind": "gamma", "rate": 1, "cvv": 2}}, r"\$\.arrivals.*cvv"),
        (
            {"arrivals": {"kind": "gamma", "rate": 1, "cv": -2}},
            r"\$\.arrivals: cv must be positive",
        ),
        ({"arrivals": {"kind": "uniform"}}, r"\$\.arrivals\.kind.*uniform"),
        ({"arrivals": {"kind": "gamma", "rate": "fast"}}, r"\$\.arrivals\.rate"),
        ({}, "arrivals"),
    ],
)
def test_a_mistake_carries_its_path(value, complaint):
    """The reader is told where, not only what."""
    with pytest.raises(UserError, match=complaint):
        parse(value, Load)


def test_short_forms():
    """Numbers, words and flags are told apart."""
    assert short_form("poisson", where="x") == {"kind": "poisson"}
    assert short_form("a:n=3,x=0.5,s=abc,f=true", where="x") == {
        "kind": "a",
        "n": 3,
        "x": 0.5,
        "s": "abc",
        "f": True,
    }
    with pytest.raises(UserError, match="'3' is not name=value"):
        short_form("a:3", where="--arrivals")


def test_files(tmp_path):
    """YAML and JSON are read alike; errors carry the file, and the line where it is not YAML."""
    (tmp_path / "a.yaml").write_text("arrivals:\n  kind: constant\n  rate: 3\n")
    (tmp_path / "bad.yaml").write_text("arrivals: [1,\nb: 2")

    assert read_spec(tmp_path / "a.yaml", Load) == Load(arrivals=Constant(rate=3))
    with pytest.raises(UserError, match=r"bad\.yaml:2"):
        read_spec(tmp_path / "bad.yaml", Load)
    with pytest.raises(UserError, match=r"none\.yaml: cannot read"):
        read_spec(tmp_path / "none.yaml", Load)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("500ms", 0.5), ("30s", 30), ("5m", 300), ("1h", 3600), ("2", 2), (0.5, 0.5), ("10us", 1e-5)],
)
def test_durations(text, expected):
    """A number alone is seconds."""
    assert seconds(text, where="x") == pytest.approx(expected)


@pytest.mark.parametrize("text", ["", "soon", "5 parsecs", "1.2.3s", "-4s"])
def test_what_is_not_a_duration(text):
    """Says how to write one."""
    with pytest.raises(UserError, match="write 500ms"):
        seconds(text, where="--duration")
