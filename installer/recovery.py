"""An install that was cut short is finished or taken back: as the database says."""

from installer.durable import storage_refusals
from installer.errors import NotSwitchedError, OnlineUnfinishedError
from installer.machine import Machine
from installer.manifest import Manifest, Script
from installer.outcome import Outcome
from installer.planning import phases
from installer.receipts import publish
from installer.report import Report
from installer.site import Site, open_site, plan
from installer.state import ProductState
from installer.switching import after_commit, conclude, switch


@storage_refusals()
def recover(product: str, machine: Machine, report: Report) -> Outcome | None:
    """Finish or take back an install that was cut short, as the database says.

    Raises:
        NotSwitchedError: the change stands, but the staged tree is not whole.
        OnlineUnfinishedError: online scripts are left, which only the package has.
    """
    state = ProductState(machine.state / product)
    with state.lock():
        pending = state.pending()
        if pending is None:
            return None
        outcome, left = _settle(pending, state, machine, report)
        if left:
            raise OnlineUnfinishedError(
                f"online scripts of {pending.title} are left: {', '.join(s.name for s in left)}",
            )
        return outcome


def settle_other(state: ProductState, manifest: Manifest, machine: Machine, report: Report) -> None:
    """Settle an install of another release that was cut short; the same one simply runs again."""
    pending = state.pending()
    if pending is None:
        publish(state, machine.state, report)  # what could not be signed at the time
    elif pending.digest != manifest.digest:
        _settle(pending, state, machine, report)


def _settle(
    pending: Manifest, state: ProductState, machine: Machine, report: Report
) -> tuple[Outcome, tuple[Script, ...]]:
    """Roll an install forward or back; also says which online scripts are left of it."""
    report.about(pending)
    with open_site(pending, state, machine) as site:
        if site.is_committed():
            with after_commit(pending):
                _require_staged(site)
                switch(site, machine, report)
                _, _, left = phases(plan(site))
                if not left:
                    conclude(site, machine, report)
            return Outcome(pending.product, pending.version, "rolled forward"), left
        if site.folder:
            site.folder.discard(pending.version)
        state.abandon()
        report.step(f"{pending.title}: not committed; what was staged is removed")
        return Outcome(pending.product, pending.version, "taken back"), ()


def _require_staged(site: Site) -> None:
    application = site.manifest.application
    if not (site.folder and application):
        return
    staged = site.folder.folder(site.manifest.version)
    if site.folder.tree_of(site.manifest.version) != site.folder.own(application.tree):
        raise NotSwitchedError(f"{staged} is not whole; install the package again to stage it anew")
