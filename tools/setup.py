"""Makes the project's .venv: `python3 tools/setup.py [run|dev]`, called by the Makefile before every target.

This file is read by whatever Python the machine has, so it keeps to what Python 2.7 and 3.x both understand; the
work is in environment.py beside it.
"""

import sys

OLDEST = (3, 10)


def too_old(version):
    """Two lines for a Python that cannot run the project, or an empty text. `version` is (major, minor, ...)."""
    if tuple(version[:2]) >= OLDEST:
        return ""
    return (
        "error: this Python is {}.{}, and the project needs 3.10 or newer.\n"
        "       Name a newer one that is installed here, for example: make setup PYTHON=python3.12"
    ).format(*version[:2])


if __name__ == "__main__":
    complaint = too_old(sys.version_info)
    if complaint:
        sys.stderr.write(complaint + "\n")
        sys.exit(1)
    import environment

    sys.exit(environment.main(sys.argv[1:]))
