"""The commands of `scarlet-bench`, one file each; `bench.cli` puts them together."""
