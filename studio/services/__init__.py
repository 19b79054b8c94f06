"""What a person may ask, and how it becomes a job: used by page, API and command line alike."""
