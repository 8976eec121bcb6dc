"""A seat is given the passwords of its role, and no other."""

import pickle
import tempfile
from pathlib import Path

import pytest
from redis.exceptions import NoPermissionError

from ledger import Ledger
from ledger.lease import Lease
from ledger.server import open_redis
from ledger.users import Users
from orgs.orgfile import OrgFile
from orgs.seats import USERS, Site
from sandbox.device import find_device
from tests.ledger.samples import campaign, idea
from tests.orgs.lab import ROOT


@pytest.mark.parametrize("role", USERS)
def test_what_is_sent_to_a_seat_holds_the_passwords_of_its_role_alone(role: str) -> None:
    with tempfile.TemporaryDirectory(prefix="ar-") as folder, open_redis(Path(folder)) as server:
        org = OrgFile.load(ROOT / "orgs" / "demo.toml", ROOT)
        site = Site(ROOT, server.logins, "night", org, "runc", find_device("cpu"), 1.5)
        sent = pickle.dumps(site.of(role))
        passwords = Users.of(Path(folder) / "redis").passwords
        assert {user for user, password in passwords.items() if password.encode() in sent} == set(USERS[role])


def test_a_seat_comes_to_the_ledger_as_the_user_of_its_role() -> None:
    with tempfile.TemporaryDirectory(prefix="ar-") as folder, open_redis(Path(folder)) as server:
        Ledger(server.client, "night").create(campaign("night"))
        org = OrgFile.load(ROOT / "orgs" / "demo.toml", ROOT)
        site = Site(ROOT, server.logins, "night", org, "runc", find_device("cpu"), 1.5)
        assert site.of("planner").ledger("agent").propose(idea(), author="p", roles={}) == 1
        with pytest.raises(NoPermissionError):
            site.of("planner").ledger("agent").merged(1, Lease("relay/night", "me", 1), "c" * 40, "")
        with pytest.raises(KeyError):
            site.of("planner").ledger("arbiter")
