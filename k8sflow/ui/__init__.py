"""``k8sflow ui``: the runs of a store in the browser; a server that only reads, on this machine only.

``app.py`` has the addresses, ``guard.py`` decides who is answered, ``library.py`` finds runs, ``progress.py`` follows
one of them.
"""
