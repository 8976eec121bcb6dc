# The two commands of a fresh machine: `make demo` and `make test`. Everything they install goes to .venv (see setup.sh).
BIN := .venv/bin

.PHONY: demo test setup lint clean

demo: ## runs of the start + 6 sandboxed experiments on this machine, ending in a table, a plot and a branch
	@./setup.sh demo
	@$(BIN)/autoresearch-org launch orgs/demo.toml
	@$(BIN)/autoresearch-org report

test: ## linter, type checker and all tests, against real components
	@./setup.sh test
	@$(MAKE) --no-print-directory lint
	@# Hundreds of processes import the project: they keep its bytecode, whatever the environment says of that.
	PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

lint:
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## removes what the two commands made, the ledger included
	rm -rf .venv .autoresearch .pytest_cache .ruff_cache *.egg-info
