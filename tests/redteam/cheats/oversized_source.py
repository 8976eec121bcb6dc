"""Brings a megabyte of text along in its source."""

from tests.redteam.cheats.honest import *

CHEAT = True
GROUP = "the files"
VERDICT = "invalid"
NAIVE = "believed"

if CHEAT:
    BROUGHT_ALONG = "<1000000 characters>"
