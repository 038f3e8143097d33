"""What all pages share: filling templates, writing the file, one style sheet, colours of runs and curves."""
