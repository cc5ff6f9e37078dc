"""Numbers out of records: what a run's raw files say."""
