"""This revision's latency against another's."""
