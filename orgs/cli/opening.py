"""Opening the ledger of a campaign, for the duration of a block."""

from collections.abc import Iterator
from contextlib import contextmanager

from redis import Redis

from ledger import Ledger
from ledger.server import RedisServer, join, open_redis
from orgs.lab import Lab
from orgs.orgfile import OrgFile
from records import BadInput, MissingComponent


@contextmanager
def ledger_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[Ledger]:
    """The ledger of a campaign, by default the newest.

    Raises:
        MissingComponent: there is no campaign yet.
        BadInput: there is none of that name.
    """
    with server_of(lab, redis_url, campaign) as (server, name):
        yield server.ledger(name)


@contextmanager
def ledger_if_any(
    lab: Lab, redis_url: str | None, campaign: str | None, org: OrgFile | None
) -> Iterator[Ledger | None]:
    """The ledger of a campaign, by default of the newest that was not imported; of this org, if one is given. None where there is none.

    Raises:
        BadInput: there is none of that name.
    """
    with open_redis(lab.state, redis_url, allow_weak=True) as server:
        reader = join(server.logins["reader"])
        if campaign is not None:
            yield server.ledger(known(reader, campaign))
            return
        campaigns = [Ledger(reader, name).campaign() for name in Ledger.campaigns(reader)]
        mine = [c for c in campaigns if not c.imported_from and (org is None or c.org == org.name)]
        yield server.ledger(max(mine, key=lambda c: c.created_at).name) if mine else None


@contextmanager
def bench_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[tuple[Ledger, Redis]]:
    """The same ledger for one who measures, and the connection that leases devices."""
    with server_of(lab, redis_url, campaign) as (server, name):
        yield server.ledger(name, "runner"), join(server.logins["lease"])


@contextmanager
def server_of(lab: Lab, redis_url: str | None, campaign: str | None) -> Iterator[tuple[RedisServer, str]]:
    # Whoever only looks may look into any.
    with open_redis(lab.state, redis_url, allow_weak=True) as server:
        reader = join(server.logins["reader"])
        names = Ledger.campaigns(reader)
        if not names:
            raise MissingComponent(
                "the ledger is empty: run autoresearch-org launch orgs/demo.toml, or bring a lost one back with ledger restore "
                "or ledger rebuild"
            )
        campaigns = [Ledger(reader, name).campaign() for name in names]
        last = max(campaigns, key=lambda one: (not one.imported_from, one.created_at)).name  # the lab's own come first
        yield server, last if campaign is None else known(reader, campaign)


def known(client: Redis, campaign: str) -> str:
    """The name itself. Raises BadInput if the ledger has no such campaign."""
    names = Ledger.campaigns(client)
    if campaign not in names:
        raise BadInput(f"no campaign {campaign} in this ledger (there are: {', '.join(names) or 'none'})")
    return campaign
