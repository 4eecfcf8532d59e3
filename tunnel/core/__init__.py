"""The tunnel as pure code: bytes, intents and the time go in; bytes, events and the next timer come out."""
