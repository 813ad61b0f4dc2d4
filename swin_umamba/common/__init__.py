"""What every other part stands on: files written whole, argument checks, facts of the machine."""
