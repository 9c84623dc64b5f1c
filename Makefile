# Everything made goes to .cache/, or to the folder that FLEET_MICROCODE_CACHE names; the home folder stays as it is.
PYTHON ?= python3
GATE = $(PYTHON) tests/gate/gate.py

.PHONY: demo test test-root test-import lab lab-smoke bench build clean

demo:         # assess the simulated fleet, plan it, and roll the plan out
	@$(GATE) demo

test:         # all checks that need no root; some of them: make test ONLY="unit lint"
	@$(GATE) test $(ONLY)

test-root:    # Debian systems made on the spot (needs root, Debian, mmdebstrap)
	@$(GATE) test root

test-import:  # what Galaxy checks when it imports the tarball
	@$(GATE) test import

lab:          # real Xen and Linux on an emulated processor (needs root, Debian); some: make lab ARGS="-k early"
	@$(GATE) lab $(ARGS)

lab-smoke:    # the few of them that CI runs
	@$(GATE) lab -m smoke

bench:        # how fast, side by side with other tools; one section: make bench ARGS="--only facts"
	@$(GATE) bench $(ARGS)

build:        # the tarball, in dist/
	@$(GATE) build

clean:
	rm -rf .cache dist
