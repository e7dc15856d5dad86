"""What everything stands on: parameters, errors, files, names of parts."""
