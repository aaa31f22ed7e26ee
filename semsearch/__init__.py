__version__ = "0.1.0"

def load_ipython_extension(shell):
    "`%load_ext semsearch`: teach IPython `%semsearch`"
    from semsearch.magic import load_magic
    load_magic(shell)
