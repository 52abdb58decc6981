"""The comparison of the gateway with its peers; `make bench` runs it and writes RESULTS.md."""
