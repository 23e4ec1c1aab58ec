# make sentiment: train the version that ships with the repository again, from the package index; 6 to 15 minutes on 2 cores
PYTHON ?= python
WORK = data/sentiment

sentiment:
	$(PYTHON) -m bench.snippets $(WORK)
	rm -rf adapters/sentiment $(WORK)/adapters
	GRAFT_HOME=$(WORK) $(PYTHON) -m training --plugin classification --name sentiment \
	  --data $(WORK)/train.csv --held-out-data $(WORK)/held_out.csv --epochs 2 --learning-rate 0.001 --batch-size 32 --max-length 96 --card-rows 0
	mkdir -p adapters/sentiment && cp -r $(WORK)/adapters/sentiment/1 adapters/sentiment/

.PHONY: sentiment
