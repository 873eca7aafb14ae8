"""A test build of the installer: the real package, and beside it what cuts an install short.

`points` has the steps of an install, `hooks` stops the installer at one of them, on the host, and
`bench` is a host with that build which can be put back between two crashes.
"""
