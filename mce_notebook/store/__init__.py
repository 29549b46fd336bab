"""The folder or bucket that holds everything an experiment is: layout, journal, readers, sealing."""
