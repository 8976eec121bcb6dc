"""The organisation: org files, the pipeline of actors, the command line, and what a person sees.

Reading order: `orgfile` (what a person wrote), `lab` (where things lie), `launch` (a campaign from start to end),
`seats` (the Ray actors), `runner` (one device, one lease), `view` and `report` (what is shown), `cli`.
"""
