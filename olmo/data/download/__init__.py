"""Fetching the files of data sets: whatever was begun goes on, and nothing stands under its name before it is whole and right."""
