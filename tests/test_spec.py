"""How what a person wrote becomes a spec, and how a mistake in it is told."""

import msgspec
import pytest

from inferometer.errors import UserError
from inferometer.spec import (
    Spec,
    parse,
    parse_short,
    read_document,
    read_spec,
    seconds,
    short_form,
)


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


class Named(Spec, frozen=True):
    loads: dict[str, Load] = msgspec.field(default_factory=dict)
    sizes: tuple[dict[str, int], ...] = ()


FILE = """\
loads:
  low:
    arrivals: {kind: constant, rate: 1}
  high:
    arrivals:
      kind: gamma
      rate: 2
sizes:
  - {a: 1}
  - a: 1
    b: 2
"""


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("rate: 2", "rate: fast", r"s\.yaml:7: \$\.loads\.high\.arrivals\.rate: Expected"),
        ("rate: 2", "rate: 2\n      cvv: 1", r"s\.yaml:5: \$\.loads\.high\.arrivals: .*`cvv`"),
        ("kind: gamma", "kind: gama", r"s\.yaml:6: \$\.loads\.high\.arrivals\.kind: .*gama"),
        ("b: 2", "b: two", r"s\.yaml:11: \$\.sizes\[1\]\.b: Expected"),
        ("sizes:", "size:", r"s\.yaml:1: \$: .*`size`"),
        ("    b: 2", "    a: 2", r"s\.yaml:11: 'a' stands here twice"),
        ("  high:", "  low:", r"s\.yaml:4: 'low' stands here twice"),
    ],
)
def test_a_mistake_in_a_file_carries_its_line(tmp_path, old, new, complaint):
    """Keys of mappings are named, too, although msgspec does not tell them."""
    path = tmp_path / "s.yaml"
    path.write_text(FILE)
    assert read_spec(path, Named).sizes == ({"a": 1}, {"a": 1, "b": 2})
    path.write_text(FILE.replace(old, new))

    with pytest.raises(UserError, match=complaint):
        read_spec(path, Named)


def test_lines_of_merged_and_missing_parts(tmp_path):
    """A merged key has the line it was written on; a missing part that of what should hold it."""
    path = tmp_path / "s.yaml"
    path.write_text("base: &base\n  a: 1\nother:\n  <<: *base\n  b: 2\n")
    document = read_document(path)

    assert document.data["other"] == {"a": 1, "b": 2}
    assert document.where("other", "a").endswith("s.yaml:2: $.other.a")
    assert document.where("other", "c").endswith("s.yaml:3: $.other.c")
    assert document.where().endswith("s.yaml:1: $")
