"""Who may open which page and send its forms: a table, enforced in one place (`admission`).

What is not in the table cannot be reached: the application refuses to be made with a route that has no page.
"""

from dataclasses import dataclass
from enum import StrEnum


class Role(StrEnum):
    """What a user of the console is there for. The names are those of the log's roles, and of the regulator's."""

    COORDINATOR = "coordinator-ops"
    ML_ENGINEER = "ml-engineer"
    APPROVER = "approver"
    AUDITOR = "auditor"
    REGULATOR = "regulator"
    SITE_ADMIN = "site-admin"
    SITE_DPO = "site-dpo"
    DATA_STEWARD = "data-steward"


EVERYONE = frozenset(Role)
# What these open is written into the access log, page by page.
WATCHED = frozenset({Role.AUDITOR, Role.REGULATOR})
# A user of these roles has to have a date on which the account ends.
TIME_BOXED = frozenset({Role.REGULATOR})

ROLE_NOTES = {
    Role.COORDINATOR: "keeps the server running; approves nothing, deletes nothing",
    Role.ML_ENGINEER: "follows runs and models; signs as author",
    Role.APPROVER: "answers for what goes into use",
    Role.AUDITOR: "reads and proves everything; what is opened is recorded",
    Role.REGULATOR: "as an auditor, until a date",
    Role.SITE_ADMIN: "sees what the sites share",
    Role.SITE_DPO: "sees what was charged to whose budget, and the log",
    Role.DATA_STEWARD: "sees which data went where",
}


@dataclass(frozen=True, slots=True)
class Page:
    """One entry of the navigation, and everything under its path.

    Args:
        path: where it begins.
        title: of the navigation and the first heading.
        says: what it shows, in a few words.
        readers: who may open it.
        writers: who may send its forms.
    """

    path: str
    title: str
    says: str
    readers: frozenset[Role]
    writers: frozenset[Role] = frozenset()


OVERVIEW = Page("/", "Overview", "the three promises, sites, connections", EVERYONE)
RUNS = Page("/runs", "Runs", "runs, and a run as it goes", EVERYONE - {Role.SITE_DPO})
BUDGETS = Page("/budgets", "Privacy budgets", "what was charged to whom", EVERYONE - {Role.DATA_STEWARD})
MODELS = Page("/models", "Models", "bundles, figures, gates, where aliases point", EVERYONE)
LINEAGE = Page("/lineage", "Lineage", "what made a model, what something has reached", EVERYONE)
DRIFT = Page("/drift", "Drift alarms", "watched models, window by window", EVERYONE - {Role.SITE_DPO})
SIGNERS = frozenset({Role.APPROVER, Role.ML_ENGINEER})
INSIDERS = SIGNERS | {Role.COORDINATOR}
APPROVALS = Page("/approvals", "Approvals", "what waits for whose signature", INSIDERS | WATCHED, SIGNERS)
# A model's files, for whoever signs it. Reached from the approvals, and not in the navigation.
BUNDLE_FILES = Page("/bundle-files", "Bundle files", "a bundle, for whoever signs it", SIGNERS)
LOG = Page("/log", "Log", "every entry, with proofs and witnesses", EVERYONE)
ACCESS = Page(
    "/access", "Access log", "who signed in, what auditors opened, what was denied", frozenset({Role.AUDITOR})
)
ACCOUNT = Page("/account", "Your account", "your roles, your sessions, appearance", EVERYONE, EVERYONE)

# In the order of the navigation.
PAGES: tuple[Page, ...] = (
    OVERVIEW,
    RUNS,
    BUDGETS,
    MODELS,
    LINEAGE,
    DRIFT,
    APPROVALS,
    LOG,
    ACCESS,
    ACCOUNT,
)
