"""Opens streams between clients and agents, in both directions. It is the one way to do so.

    Door -> Policed -> Recorded -> Local

`Door` gives each open its place in the table of what runs, and finds its routes; `Policed` leaves those that a rule
allows; `Recorded` writes what the audit log says of it, from before the first byte to its end; `Local` opens the stream
at the agent's session. Nothing opens a stream beside it.
"""
