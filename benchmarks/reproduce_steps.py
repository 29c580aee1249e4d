"""What a study of `reproduce.py` is made of: commands with pinned arguments, and the tables that are made from what they leave.

``{work}`` is the folder of outputs, ``{data}`` that of real data, ``{benchmarks}`` the one of this file.
"""

from __future__ import annotations

from dataclasses import dataclass

from reproduce_tables import Make, Table, printed

PRINTS = ".md"  # a step that makes NAME.md: its standard output is kept there


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command.

    Attributes:
        name: of the step; command: words separated by spaces.
        makes: file or folder in the work folder that is there when the step is done; `NAME.md` keeps what it prints.
        minutes: expected on two free cores; measured where a results page gives the time, else estimated.
        tables: tables that are made from it.
    """

    name: str
    command: str
    makes: str
    minutes: float
    tables: tuple[Table, ...] = ()

    @property
    def needs(self) -> list[str]:
        """Files and folders of real data that the command reads."""
        return [word.removeprefix("{data}/") for word in self.command.split() if word.startswith("{data}/")]


@dataclass(frozen=True, kw_only=True)
class Study:
    """Steps in the order in which they run; `model` is the shipped model that they need."""

    name: str
    steps: tuple[Step, ...]
    model: str = ""


def prints(name: str, command: str, minutes: float, page: str, make: Make = printed) -> Step:
    """Return a step whose printed tables become the table of the same name."""
    table = Table(name=name, page=page, make=make)
    return Step(name=name, command=command, makes=name + PRINTS, minutes=minutes, tables=(table,))


PAIRED = "--data {work}/kidney.paired"
PREPARE_KIDNEY = Step(
    name="prepare",
    command="sge2hist prepare {data}/kidney_visium_hd/outs --image {data}/kidney_visium_hd/he.tif --bin-um 16 "
    "--patch-um 128 --patch-px 64 --types markers:kidney --shift-um 7,2 -o {work}/kidney.paired",
    makes="kidney.paired",
    minutes=2,
)
