"""The one way by which every front end opens a stream to something at an agent."""
