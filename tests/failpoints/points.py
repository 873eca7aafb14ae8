"""The points at which an install is cut short: before each of its steps, in their order.

A step is named *module.function verb*, as `hooks` names what it sees. The tests record real
installs and compare: a step that is not listed here, or listed and not taken, makes them fail.
Each step is one change, or several that are one as far as a crash goes (`WITHIN`).
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

COMMIT = "database._commit COMMIT"

POINTS: Mapping[str, str] = {
    "rotation._alone write": "before the file that lets one process at a time judge a policy",
    "rotation._remember write": "before the first policy is kept",
    "rotation._remember rename": "the first policy is written, and not remembered yet",
    "clock.remember write": "the signatures are good, and nothing is touched yet",
    "clock.remember rename": "the time is written, and not remembered yet",
    "state.lock write": "before the product's folder and lock file are there",
    "state.begin write": "before anything of the release is on the host",
    "state.begin rename": "what is to be remembered is written, and not remembered yet",
    "application.require_private write": "the install is remembered, the root is not made",
    "application._staging write": "the install is remembered, nothing is staged",
    "application._copy write": "within the copy of the current tree",
    "application._apply git": "the current tree is copied, and not patched",
    "application._open_folders write": "the tree is patched and compared, its folders are closed",
    "application._staging rename": "the tree is whole and on the disk, and has not got its name",
    "database.transaction SQL": "before a transaction begins",
    "database._lock SQL": "before the install lock is taken",
    "database._ensure_ledger SQL": "the lock is held, and there is no ledger yet",
    "database.schema SQL": "before the schema is measured apart from the transaction",
    "state.keep_start write": "the schema is measured, and not kept",
    "state.keep_start rename": "the schema is written, and not kept yet",
    "transaction._functions SQL": "before the functions are made that run scripts",
    "transaction.run_part SQL": "before a script, a verifying one, or an online statement runs",
    "transaction.settle_constraints SQL": "all scripts have run, constraints are not settled",
    "transaction.drop_functions SQL": "the constraints hold, the functions are not dropped",
    "transaction.append SQL": "the schema is compared, the ledger has not got the rows",
    "state.keep_draft write": "the ledger has its rows, the receipt is not kept",
    "state.keep_draft rename": "the receipt is written, and not kept yet",
    COMMIT: "all is done but COMMIT",
    "database.run_alone SQL": "a statement outside of transactions is begun, and not sent",
    "database._commit SQL": "an online script is done, the lock over them may be lost",
    "database.held SQL": "before the lock over online scripts is given back",
    "application.switch link": "committed, nothing is switched",
    "application.switch rename": "committed, the link is made, and is not `current` yet",
    "switching._restart systemctl": "switched, no service is restarted",
    "host_key._gpg gpg": "switched, the receipt is not signed",
    "host_key._gpg gpgconf": "gpg has run, and its agent has not ended",
    "receipts._publish write": "before a signature or a receipt is written",
    "receipts._publish rename": "a signature or a receipt is written, and has not got its name",
    "receipts._publish remove": "the receipt is published, its draft is still there",
    "application.prune remove": "within the removal of an old tree",
    "state.finish remove": "old trees are gone, the schema from before is still kept",
    "state.finish rename": "all is done but to remember the release as installed",
    "application.discard remove": "it failed: within the removal of the staged tree",
    "state.drop_drafts remove": "the rerun of what was not committed, whose receipt is still kept",
    "state.abandon remove": "it failed: the staged tree is gone, and still remembered as begun",
    "cli.main end": "all is done, the package manager does not know yet",
}
"""What stands when an install is cut short there."""

STAGED_FILES = ("application._copy write", "application._open_folders write")
WITHIN: Mapping[str, set[str]] = {
    "first": {"state.lock write", "application.require_private write"},
    "upgrade": {*STAGED_FILES, "application.prune remove"},
    "online": {*STAGED_FILES, "application.prune remove"},
    "failing": {*STAGED_FILES, "application.discard remove"},
    "again": {"application.prune remove"},
}
"""Steps of a scenario that change several files; they are cut short before the second."""

CLOCK = ("clock.remember write", "clock.remember rename", "state.lock write")
BEGIN = ("state.begin write", "state.begin rename")
STAGE = (
    *("application._staging write", "application._copy write", "application._apply git"),
    *("application._open_folders write", "application._staging rename"),
)
OPEN = ("database.transaction SQL", "database._lock SQL")
RUN = "transaction.run_part SQL"
RECORD = ("transaction.append SQL", "transaction.append SQL")
KEEP = ("state.keep_draft write", "state.keep_draft rename")
SWITCH = (
    *("application.switch link", "application.switch rename"),
    "switching._restart systemctl",
)
SIGN = ("host_key._gpg gpg", "host_key._gpg gpgconf")
PUBLISH = (
    *SIGN,  # which key is it
    *SIGN,
    *("receipts._publish write", "receipts._publish rename"),  # the signature
    *("receipts._publish write", "receipts._publish rename"),  # the receipt
    "receipts._publish remove",
)
PRUNE = "application.prune remove"
FINISH = "state.finish rename"
END = "cli.main end"


def inside(runs: int) -> tuple[str, ...]:
    """Scripts of a transaction, from the first to the last."""
    settled = ("transaction.settle_constraints SQL", "transaction.drop_functions SQL")
    return ("transaction._functions SQL", *(RUN,) * runs, *settled)


HOLD = ("database._commit SQL", COMMIT)
"""The end of a transaction while the lock over online scripts is held."""
STATEMENT = (*OPEN, *inside(1), *RECORD, *HOLD)
ROW = (*OPEN, *RECORD, *HOLD)
LOOK_AT_INDEX = (*OPEN, *inside(2), *HOLD)
INDEX = (
    *LOOK_AT_INDEX,
    *ROW,  # that it is begun
    *(*OPEN, *HOLD),
    *("database.run_alone SQL", "database.run_alone SQL"),
    *LOOK_AT_INDEX,
    *ROW,  # that it is applied
)
UPGRADE = (
    *OPEN,
    *inside(3),
    *RECORD,
    *KEEP,
    COMMIT,
    *SWITCH,
    *PUBLISH,
    PRUNE,
    FINISH,
    END,
)
SCENARIOS: Mapping[str, tuple[str, ...]] = {
    "first": (
        *("rotation._alone write", "rotation._remember write", "rotation._remember rename"),
        *CLOCK,
        *BEGIN,
        "application.require_private write",
        *(step for step in STAGE if step != "application._copy write"),
        *OPEN,
        *("database._ensure_ledger SQL", "database._ensure_ledger SQL"),
        *inside(3),
        *RECORD,
        *KEEP,
        COMMIT,
        *SWITCH,
        *PUBLISH,
        FINISH,
        END,
    ),
    "upgrade": (*CLOCK, *BEGIN, *STAGE, *UPGRADE),
    "online": (
        *CLOCK,
        *BEGIN,
        *STAGE,
        *("database._lock SQL", "database.schema SQL"),
        *("state.keep_start write", "state.keep_start rename"),
        *STATEMENT,
        *STATEMENT,
        *ROW,  # of the script
        *OPEN,
        *inside(2),
        *RECORD,
        *KEEP,
        *HOLD,
        "database.held SQL",
        *SWITCH,
        "database._lock SQL",
        *INDEX,
        *ROW,
        *STATEMENT,
        *ROW,
        *("database.schema SQL", "database.held SQL"),
        *KEEP,
        *PUBLISH,
        PRUNE,
        *("state.finish remove", FINISH),
        END,
    ),
    "failing": (
        *CLOCK,
        *BEGIN,
        *STAGE,
        *OPEN,
        *("transaction._functions SQL", RUN, RUN),
        *("application.discard remove", "state.abandon remove"),
        *OPEN,
        *RECORD,
        COMMIT,
        *KEEP,
        *PUBLISH,
        END,
    ),
    "again": (
        *CLOCK,
        "state.drop_drafts remove",
        *BEGIN,
        *UPGRADE,
    ),
}
"""A first release, an upgrade, one with online scripts, one of which a script fails, and an upgrade
after one that was cut short before COMMIT."""


ROWS: Mapping[str, Sequence[int]] = {
    "first": (3,),
    "upgrade": (3,),
    "online": (1, 1, 1, 2, 0, 1, 0, 0, 1, 1, 1, 1),
    "failing": (1,),
    "again": (3,),
}
"""How many rows the ledger gets with each COMMIT."""


@dataclass(frozen=True, slots=True)
class Step:
    """A step of a scenario: the `number`-th of its name, at its `file`-th file.

    `done` are the names of those before it.
    """

    scenario: str
    name: str
    number: int
    file: int
    done: Sequence[str]

    @property
    def title(self) -> str:
        """As a test's id."""
        return f"{self.scenario}-{self.name}-{self.number}"

    @property
    def version(self) -> str:
        """The release that is installed."""
        return "1.0" if self.scenario == "first" else "1.1"

    def is_after(self, name: str, number: int = 1) -> bool:
        """Whether the `number`-th step of that name is done."""
        return self.done.count(name) >= number

    def is_between(self, begun: str, ended: str) -> bool:
        """Whether the one is done, and the other is not."""
        return self.is_after(begun) and not self.is_after(ended)

    @property
    def commits(self) -> int:
        """How many transactions are committed."""
        return self.done.count(COMMIT)

    @property
    def rows(self) -> int:
        """How many rows of the release the ledger has."""
        return sum(ROWS[self.scenario][: self.commits])

    @property
    def is_committed(self) -> bool:
        """Whether the release stands: it has its row."""
        if self.scenario == "failing":
            return False
        return self.commits >= (4 if self.scenario == "online" else 1)


def steps(scenario: str) -> list[Step]:
    """All steps of a scenario, each of which is a point."""
    seen, names, found = Counter[str](), SCENARIOS[scenario], list[Step]()
    for index, name in enumerate(names):
        seen[name] += 1
        file = 2 if name in WITHIN[scenario] else 1
        found.append(Step(scenario, name, seen[name], file, names[:index]))
    return found


def memory_at(step: Step, before: Collection[str]) -> set[str]:
    """What is in the state folder when an install is cut short at `step`; `before` was there."""
    draft = f"crm/crm-{step.version}.json"
    receipts = (f"receipts/crm-{step.version}.json.asc", f"receipts/crm-{step.version}.json")
    written = [
        ("policy.toml", "rotation._remember", 1),
        ("clock.txt", "clock.remember", 1),
        ("crm/pending", "state.begin", 1),
        ("crm/start", "state.keep_start", 1),
        (draft, "state.keep_draft", 1),
        (draft, "state.keep_draft", 2),
        *((file, "receipts._publish", number) for number, file in enumerate(receipts, 1)),
    ]
    removed = [
        (draft, "receipts._publish remove"),
        ("crm/start", "state.finish remove"),
        ("crm/pending", FINISH),
        ("crm/pending", "state.abandon remove"),
    ]
    left = set(before)
    if step.is_after("state.drop_drafts remove"):
        left.discard(draft)
    for file, function, number in written:
        *folder, name = file.split("/")
        if step.is_after(f"{function} rename", number):
            left.add(file)
        elif step.is_after(f"{function} write", number):
            left.add("/".join([*folder, f".{name}.new"]))
    if step.is_after("rotation._alone write"):
        left.add("policy.lock")
    if step.is_after("state.lock write"):
        left.update({"crm", "crm/lock"})
    elif step.name == "state.lock write":
        left.add("crm")  # within
    if step.is_after(FINISH):
        left.add("crm/installed")
    return left - {file for file, name in removed if step.is_after(name)}


def folders_at(step: Step, before: Collection[str]) -> set[str]:
    """The same of what is directly in the application's root, and in `releases`."""
    staging, tree = f"releases/.{step.version}.staging", f"releases/{step.version}"
    left = set(before)
    if step.is_after("application.require_private write"):
        left.add("releases")
    if step.is_between("application._staging write", "application._staging rename"):
        left.add(staging)
    if step.is_after("application._staging rename"):
        left.add(tree)
    if step.is_between("application.switch link", "application.switch rename"):
        left.add(".current.new")
    if step.is_after("application.switch rename"):
        left.add("current")
    if step.is_after("application.discard remove"):
        left.discard(tree)
    if step.is_after(PRUNE):
        left.discard("releases/1.0")
    return left
