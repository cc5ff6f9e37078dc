"""The demo set of labelled images."""
