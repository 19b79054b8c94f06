"""What a template is made of, once it is read.

Knows: the values that the parser makes and the writers walk through. Does not know: the signs, how
anything is chosen, files.

    Words        a stretch of text                                a red boat
    Series       parts, one after the other
    Variants     some of several options                          {2$$ and $$a|0.5::b|c}
    Wildcard     some line of a list                              __animals/cats__
    Assignment   gives a variable its value, and writes nothing   ${x={red|blue}}, ${x=!{red|blue}}
    Access       the value of a variable                          ${x}, ${x:red}
    Wrap         a text put into another's gap                    %{a photo of ... $$ a boat}
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Words:
    """A stretch of text that stays as it is."""

    text: str


@dataclass(frozen=True)
class Series:
    """Parts, written one after the other."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Option:
    """One of several, and how often it is chosen (1 is neutral)."""

    node: Node
    weight: float = 1.0


@dataclass(frozen=True)
class Variants:
    """Some of several options, each at most once.

    Attributes:
        options: At least one.
        least: How many are chosen at least.
        most: How many at most; both are cut to what there is.
        separator: What stands between them.
        source: As it is written, for errors.
    """

    options: tuple[Option, ...]
    least: int = 1
    most: int = 1
    separator: str = ","
    source: str = ""


@dataclass(frozen=True)
class Wildcard:
    """A line of the lists that a name stands for.

    Attributes:
        name: What comes to the name: mostly words.
        variables: Values that hold in that line, by variable.
        source: As it is written, for errors.
    """

    name: Node
    variables: tuple[tuple[str, Node], ...] = ()
    source: str = ""


@dataclass(frozen=True)
class Assignment:
    """The value of a variable, for all of the series it stands in.

    Attributes:
        variable: Its name.
        value: What it stands for.
        is_immediate: Whether it is chosen once; else anew wherever the variable is named.
        keeps_earlier: Whether a value that it has already stays.
    """

    variable: str
    value: Node
    is_immediate: bool = False
    keeps_earlier: bool = False


@dataclass(frozen=True)
class Access:
    """The value of a variable, or a default where it has none."""

    variable: str
    default: Node | None = None


@dataclass(frozen=True)
class Wrap:
    """A text that is put into the gap (`...`) of another."""

    wrapper: Node
    inner: Node


Node = Words | Series | Variants | Wildcard | Assignment | Access | Wrap
