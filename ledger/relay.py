"""The relay: lands on the branch what the arbiter decided, and says so in the ledger.

Deliveries may come twice, late and out of order; the commit that an intent names can land in one place only. Git is the
witness after a crash: the commit is on the branch (it is merged), the branch is at its parent (it lands now), or the branch
went elsewhere (the experiment starts over, and is measured again).
"""

from pydantic import ValidationError

import failpoint
from ledger.champion import Champion
from ledger.intent import Intent, Seal
from ledger.lease import Keeper, renew
from ledger.store import Ledger
from records import HostFault


def relay_lease(campaign: str) -> str:
    """What a relay must hold: the ledger takes its word under the current fence of this lease only."""
    return f"relay/{campaign}"


class Relay:
    """Empties a campaign's outbox.

    Args:
        ledger: the campaign.
        champion: its branch.
        keeper: holds and renews the lease `relay_lease(campaign)`.
        seal: the lab's seal, as for the arbiter.
    """

    def __init__(self, ledger: Ledger, champion: Champion, keeper: Keeper, seal: Seal):
        self.ledger = ledger
        self.champion = champion
        self.keeper = keeper
        self.seal = seal

    def step(self) -> bool:
        """Deliver what is in the outbox; False when there was nothing.

        Raises:
            LeaseLost, StaleFence: another relay has taken over; nothing was said in the ledger.
            HostFault: git could not write, or has not what was measured.
        """
        waiting = self.ledger.outbox()
        for experiment, text in waiting.items():
            self.deliver(experiment, text)
        return bool(waiting)

    def deliver(self, experiment: str, text: str) -> None:
        """Bring one entry of the outbox to its end, wherever the last relay left it."""
        failpoint.reach("relay.read")
        lease = self.keeper.lease
        intent = self.read(experiment, text)
        if intent is None:
            self.abandon(experiment, "its intent is not one that this lab's arbiter sealed")
            return
        # The branch may have gone on from our commit, by somebody else's hand, before we could say `merged`.
        if not self.champion.contains(intent.commit):
            if (wrong := self.wrong(intent)) is not None:
                self.abandon(experiment, f"rebase: what would land is not what was measured: {wrong}")
                return
            failpoint.reach("relay.checked")
            # A relay that slept past its lease stops here; one that falls asleep after this line can only land what its
            # successor lands too, or finds that the branch has moved.
            renew(self.keeper.client, lease, self.keeper.ttl_s)
            failpoint.reach("relay.renewed")
            landed = self.champion.land(intent.parent, intent.commit)
            # Another relay may have landed the same commit meanwhile.
            if not landed and not self.champion.contains(intent.commit):
                self.abandon(experiment, "rebase: the branch moved before the merge")
                return
            failpoint.reach("relay.landed")
        if (wrong := self.wrong(intent)) is not None:
            raise HostFault(f"{self.champion.branch} is not what was measured ({wrong}): look at `git fsck`")
        failpoint.reach("relay.verified")
        self.ledger.merged(intent.experiment, lease, intent.commit, text)
        failpoint.reach("relay.merged")

    def wrong(self, intent: Intent) -> str | None:
        return self.champion.mismatch(intent.parent, intent.commit, intent.source_sha256)

    def abandon(self, experiment: str, note: str) -> None:
        self.ledger.abandon_merge(experiment, self.keeper.lease, note)
        failpoint.reach("relay.abandoned")

    def read(self, experiment: str, text: str) -> Intent | None:
        """The intent, if the arbiter of this campaign sealed it for this experiment."""
        try:
            intent = Intent.model_validate_json(text)
        except ValidationError:
            return None
        ours = (intent.campaign, str(intent.experiment)) == (self.ledger.name, experiment)
        return intent if ours and intent.authentic(self.seal) else None
