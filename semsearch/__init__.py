"Search folders of Jupyter notebooks by meaning: from semsearch import search, NotebookSearch"

__version__ = "0.1.0"

def __getattr__(name):
    "The two names to begin with, imported when they are asked for; the module `search` can be called"
    if name not in ('search', 'NotebookSearch'): raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    from importlib import import_module
    found = import_module('semsearch.search')
    return found if name == 'search' else found.NotebookSearch

def load_ipython_extension(shell):
    "`%load_ext semsearch`: teach IPython `%semsearch`"
    from semsearch.magic import load_magic
    load_magic(shell)
