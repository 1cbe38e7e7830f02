from .. import EngineMissing
def library():
    raise EngineMissing("not built yet")
