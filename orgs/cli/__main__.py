"""So that `python -m orgs.cli` is the command line too."""

from orgs.cli import main

if __name__ == "__main__":
    main()
