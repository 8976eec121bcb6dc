"""The sandbox: runs an untrusted train.py on this machine and returns a Measurement that can be trusted.

Knows no org, no agent and no ledger. Reading order:

    profile.py    every control that a container runs under, stated once
    engines/      two ways to enforce it: `docker` and `runc`; image.py is the file system that they start
    device.py     the CPU, or one GPU; gpu.py: what is on it, and that a run leaves it as it was
    dataset.py    a prepared dataset, verified
    rundir.py     where a run's files lie, and whose they are; outbox.py: the only place that a candidate can write to
    gate.py       the conversation with a running candidate: the clock is on this side
    collect.py    takes one expected file from a hostile directory; weights.py looks at it without believing it
    score.py      a second, fresh container scores the weights (inside/score.py runs there)
    failure.py    the ways in which all this can end without a score, and how each is recognised
    oversee.py    watches over a container while it trains or scores
    watch.py      watches the machine meanwhile: alone, at full speed? contention.py: what others took of the CPU
    measure.py    the story: train, collect, score
    errand.py     an agent that somebody else wrote, sent with a task; doors.py: the hosts that it may reach
    preflight.py  two tiny steps on the CPU, for the author of a candidate
    sweep.py      finds and removes what a host process that died left behind
    ready.py      an engine that a candidate may be given to:
    selfcheck.py  every control proven from inside, by inside/probes.py on bench.py
    advisories.py published ways out, and the versions that close them
"""
