# make sentiment: train the version that ships with the repository again, from the package index; about 15 minutes on 2 cores
PYTHON ?= python
WORK = data/sentiment

sentiment:
	$(PYTHON) -m bench.snippets $(WORK)
	rm -rf adapters/sentiment $(WORK)/adapters
	GRAFT_HOME=$(WORK) $(PYTHON) -m training --plugin classification --name sentiment \
	  --data $(WORK)/train.csv --held-out-data $(WORK)/held_out.csv --epochs 2 --learning-rate 0.001 --batch-size 32 --max-length 96 --card-rows 0
	cp -r $(WORK)/adapters/sentiment adapters/

.PHONY: sentiment
