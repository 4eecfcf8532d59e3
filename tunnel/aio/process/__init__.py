"""The parts that each of our processes is made of: command line, configuration, logs, tasks and end."""
