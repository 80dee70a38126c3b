# SPDX-License-Identifier: Apache-2.0
# make demo   removal and a soft shadow on a shot made here, from nothing to one contact sheet
# make test   every test that needs no GPU, no weights and no Nuke
# make icons  the icons of the gizmos, drawn by a script
# make docs   the documentation as a site in build/docs; a broken link ends it
# make nuke-bundle  what a TD unpacks for Nuke, packages for every Nuke and help included: dist/*.zip
# make faults  every fault of the table brought about: docs/td/reliability.md; about an hour
# make fuzz  bytes of any kind at the codec and at the picture reader, by Atheris; SECONDS=60 each
# make server-bundle  what a TD installs a server from without a network: dist/*.tar
# make bench-preview  the model that ships, against what needs none: docs/models/preview.md
# make train-preview  the weights that ship, trained anew in build/preview
# make check  lint, types, import contracts and the tests: what a change has to pass
# TORCH_INDEX=URL takes torch from another index (a CPU or a CUDA build); PYTHON=PATH another 3.11.

VENV := .venv
BIN := $(VENV)/bin
TORCH_INDEX ?=
TESTS ?=
# Two OpenMP threads on a busy two-core machine are slower than one, by far.
export OMP_NUM_THREADS ?= 1

SHOT := demo/shot
OUT := demo/out

.PHONY: fuzz faults setup demo icons test test-server test-nuke nuke-bundle server-bundle try-bundle docs check fix bench bench-preview train-preview clean

setup: $(VENV)/.installed

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt tools/set_up.sh
	@sh tools/set_up.sh "$(VENV)" "$(TORCH_INDEX)"
	@touch $@

MATTES := --input plate=$(SHOT)/plate/plate.%04d.exr \
	--input matte.a=$(SHOT)/matte_a/matte_a.%04d.exr \
	--input matte.b=$(SHOT)/matte_b/matte_b.%04d.exr

KEYS := 1001,1009,1016,1024

# The same removal without a video model and with the one that ships; then a shadow for a composite.
demo: setup $(SHOT)/effect_mask
	$(BIN)/gencomp run omnimatte --out $(OUT)/temporal $(MATTES) --set clean_plate_from=temporal
	$(BIN)/gencomp run omnimatte --out $(OUT)/preview $(MATTES)
	$(BIN)/gencomp run overplusplus --out $(OUT)/shadow \
		--input fg=$(SHOT)/element/element.%04d.exr \
		--input bg=$(SHOT)/clean_plate/clean_plate.%04d.exr \
		--input effect_mask=$(SHOT)/effect_mask/effect_mask.%04d.exr \
		--set mask_frames="keyframes only" --set keyframes=$(KEYS) --set prompt="soft shadow"
	$(BIN)/python tools/demo.py sheet $(SHOT) $(OUT)

$(SHOT)/effect_mask: docs/examples/demo.toml tools/demo.py | setup
	rm -rf $(SHOT)
	$(BIN)/gencomp shot docs/examples/demo.toml --out $(SHOT)
	$(BIN)/python tools/demo.py inputs docs/examples/demo.toml $(SHOT) $(KEYS)

# The Nuke side runs under its own Pythons, 3.11 among them.
test: setup
	$(BIN)/python tools/nuke_pythons.py --beside \
		$(BIN)/python -m pytest -n 2 --dist loadfile --ignore=tests/nuke --ignore=tests/protocol

test-server: setup
	$(BIN)/python -m pytest $(TESTS)

test-nuke: setup
	$(BIN)/python tools/nuke_pythons.py

faults: setup
	$(BIN)/python tools/run_faults.py

# What breaks something is left there as crash-…, timeout-… or oom-…; the corpora grow.
fuzz: setup
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	mkdir -p build/fuzz
	cd build/fuzz && ../../$(BIN)/python ../../tools/fuzz_messages.py messages -max_total_time=$(or $(SECONDS),60) -rss_limit_mb=2048
	cd build/fuzz && ../../$(BIN)/python ../../tools/fuzz_pictures.py pictures -max_total_time=$(or $(SECONDS),60) -timeout=20 -rss_limit_mb=2048

icons: setup
	$(BIN)/python tools/icons.py

# Any Python 3.9 or newer with pip builds it; the server need not be installed.
nuke-bundle:
	$(or $(wildcard $(BIN)/python),$(PYTHON),python3) tools/nuke_bundle.py

# For the Python and the system that build it.
server-bundle: setup
	$(BIN)/python tools/server_bundle.py --torch-index "$(TORCH_INDEX)"

try-bundle: setup
	$(BIN)/python tools/nuke_bundle.py --try

docs: setup
	$(BIN)/mkdocs build

check: setup
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(MAKE) docs
	$(MAKE) test

fix: setup
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup
	for file in benchmarks/bench_*.py; do $(BIN)/python "$$file" || exit 1; done

# On the clips of benchmarks/preview_clips.json; writes the table of docs/models/preview.md anew.
bench-preview: setup
	$(BIN)/python benchmarks/bench_preview.py --table docs/models/preview.md

# The weights that ship, from nothing; it can be stopped and goes on. Some hours on two cores.
train-preview: setup
	$(BIN)/python tools/train_preview.py --out build/preview

clean:
	rm -rf .venv .venv-3.* .venv-vendor-* vendor help dist demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
