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

    def place(self, output: str, folder: Path) -> Path:
        """The file: in `folder` where the output is none that one could stand beside."""
        beside = output != "-" and not io.writer.in_place(output)
        return Path(self.file or (f"{output}.{NAME}" if beside else folder / NAME))

    def reconcile(self, lacking: np.ndarray, asked: int, place: Path, what: str, cure: str = "") -> None:
        """List them; IncompleteError (76) if there are any and that is not allowed, which says `what` and a `cure`.

        The file is there if there is one star to list, or if it was asked for.
        """
        if not len(lacking) and not self.file:
            return place.unlink(missing_ok=True)
        place.write_text("\n".join(["source_id", *map(str, lacking.tolist())]) + "\n")
        if len(lacking) and not self.allowed:
            raise IncompleteError(
                f"{len(lacking):,} of {asked:,} {what}; they are listed in {place}. TRY: {cure}--allow-missing"
            )
        return None
