"""Minds and roles: who proposes a change to train.py, who makes it, who refuses it. Talks to the ledger, never to a container."""
