"""The exception of a backend that cannot run; a module of its own, since backends and their choice both need it."""


class BackendMissing(RuntimeError):
    """A backend cannot run on this machine. The message gives the reason in one line."""
