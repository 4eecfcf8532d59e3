"""What each of our processes is made of: its command line, configuration, logs, tasks and end."""
