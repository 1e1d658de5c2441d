"""What every stage needs to run, whatever it computes. Names no stage and imports no science."""
