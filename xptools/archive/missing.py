"""Stars that were asked for and did not come: listed in a file, told, and an error unless that is allowed."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from xptools import io
from xptools.errors import IncompleteError

NAME = "missing.csv"


@dataclass(frozen=True)
class Missing:
    """What is done with them: `file` lists them ("": one beside the output), `allowed`: a table is made."""

    file: str = ""
    allowed: bool = False

    def place(self, output: str, folder: Path | None) -> Path | None:
        """The file: in `folder`, if there is one, where the output is none that one could stand beside."""
        beside = output != "-" and not io.writer.in_place(output)
        name = self.file or (f"{output}.{NAME}" if beside else folder and folder / NAME)
        return Path(name) if name else None

    def reconcile(self, lacking: np.ndarray, asked: int, place: Path | None, what: str, cure: str = "") -> None:
        """List them; IncompleteError (76) if there are any and that is not allowed, which says `what` and a `cure`.

        The file is there if there is one star to list, or if it was asked for.
        """
        if place and (len(lacking) or self.file):
            place.write_text("\n".join(["source_id", *map(str, lacking.tolist())]) + "\n")
        elif place:
            place.unlink(missing_ok=True)
        if len(lacking) and not self.allowed:
            listed = f"they are listed in {place}" if place else "--missing FILE lists them"
            raise IncompleteError(f"{len(lacking):,} of {asked:,} {what}; {listed}. TRY: {cure}--allow-missing")
