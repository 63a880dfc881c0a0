"""Steps in order, surviving crashes: a workflow is a graph of steps, a run is one execution of it.

`model` says what may be written, `graph` whether it makes sense, `decide` what follows from the facts of a run (these
are pure); `journal` reads those facts, `engine` carries out what they call for, `room` wires it together.
"""
