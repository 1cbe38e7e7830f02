"""The error of a backend that cannot run. It has a module of its own because ``backends`` imports the backends."""


class BackendMissing(RuntimeError):
    """A backend cannot run on this machine. The message gives the reason in one line."""
