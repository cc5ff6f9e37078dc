"""The acceptance of GPU features: one command that measures and judges all of them within a given time.

``steps.yaml`` says what is done in which order and for how long, ``plans/`` what the runs among it measure, and
``targets.yaml`` what their figures must reach. ``steps`` carries out, ``judge`` compares, ``summary`` writes down.
"""
