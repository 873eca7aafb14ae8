"""What a release does here is what it did where it was tested: or it is not done.

Pure. The receipt of the environment before is the measure: the scripts that ran there, the schema
before them, and the schema after. Where no receipt is required, everything may be as it is.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from installer.errors import SchemaDiffersError
from installer.fingerprint import Schema, require_same
from installer.receipt import MeasuredDatabase, Receipt


@dataclass(frozen=True, slots=True)
class Measure:
    """What was measured elsewhere; `layers` of the schema have to be the same here."""

    receipt: Receipt | None = None
    layers: tuple[str, ...] = ()

    def require_scripts(self, here: Sequence[str]) -> None:
        """Refuse to run other scripts than ran there, or in another order.

        Raises:
            SchemaDiffersError: `detail` has both lists.
        """
        if (tested := self._tested) is None:
            return
        ran = [script.name for script in tested.scripts]
        if ran != list(here):
            raise SchemaDiffersError(
                f"{self._where} ran {len(ran)} scripts, and {len(here)} would run here",
                detail=f"  {self._where} ran: {', '.join(ran) or 'none'}\n"
                f"  to run here: {', '.join(here) or 'none'}",
            )

    def require_start(self, found: Schema) -> None:
        """Refuse a schema that is not the one that the release was begun on, online scripts first.

        Raises:
            SchemaDiffersError: `detail` names the objects.
        """
        if tested := self._tested:
            what = f"the schema is not what {self._where} had before this release"
            require_same(tested.start, found, self.layers, what)

    def require_end(self, found: Schema) -> None:
        """Refuse a schema that the online scripts have left otherwise than there.

        Raises:
            SchemaDiffersError: `detail` names the objects.
        """
        if tested := self._tested:
            what = f"the online scripts make of the schema something else than in {self._where}"
            require_same(tested.end, found, self.layers, what)

    def require_before(self, found: Schema) -> None:
        """Refuse a schema that is not the one that the release was tested on.

        Raises:
            SchemaDiffersError: `detail` names the objects.
        """
        if tested := self._tested:
            moment = "this release's transaction" if tested.online else "this release"
            what = f"the schema is not what {self._where} had before {moment}"
            require_same(tested.before, found, self.layers, what)

    def require_after(self, found: Schema) -> None:
        """Refuse what the release has made of the schema, where it made something else there.

        Raises:
            SchemaDiffersError: `detail` names the objects.
        """
        if tested := self._tested:
            what = f"the release makes of the schema something else than in {self._where}"
            require_same(tested.after, found, self.layers, what)

    @property
    def _tested(self) -> MeasuredDatabase | None:
        return self.receipt.database if self.receipt else None

    @property
    def _where(self) -> str:
        return self.receipt.environment if self.receipt else ""
