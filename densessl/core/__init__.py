"""What every verb shares with the person who runs it: errors, progress, logs and safe files."""
