"""HTTP in front of an `AsyncClient`, and the command line. Imports `runtime` alone; nothing here
touches a tensor."""
