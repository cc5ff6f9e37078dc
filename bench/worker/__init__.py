"""The process that measures: speaks with the runner over a channel, and works on one Case."""


def main() -> None:
    """The main loop, under the name by which runners of every revision start it."""
    from bench.worker.serve import main as serve

    serve()
